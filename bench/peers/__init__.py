"""Other tracers of LangGraph, each set up as its own documents say, in an environment of its own."""
