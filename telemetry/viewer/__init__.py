"""The local backend: OTLP and scores on Langfuse's own paths, kept in SQLite, shown as pages."""
