"""Background runs: kept, queued, worked on, and taken up again after a crash."""
