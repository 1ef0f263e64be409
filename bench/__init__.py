"""What tracing costs, measured."""
