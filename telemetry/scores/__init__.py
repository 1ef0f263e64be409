"""Scores: judgements on traces, on disk until their places have them."""
