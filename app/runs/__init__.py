"""Background runs: stored, queued, executed, and resumed after a crash."""
