"""The libraries that are traced, one file or folder each."""
