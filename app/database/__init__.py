"""The service's database: threads, runs and checkpoints, in SQLite for one process or in Postgres for many."""
