"""LangChain's runs as spans, taken from its callbacks as they come: what is said, once; what is measured, all."""
