"""Where threads, runs, checkpoints and what became of them are kept: SQLite or Postgres."""
