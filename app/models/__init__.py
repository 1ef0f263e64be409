"""The language models of the agents, and what their tokens cost."""
