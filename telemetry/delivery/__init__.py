"""What happens between the end of a span and its acceptance: kept on disk, then posted until a backend has it."""
