"""The language models that agents talk to, and what their tokens cost."""
