"""LangChain's and LangGraph's runs as spans: who records them, how they end, and the turn around them."""
