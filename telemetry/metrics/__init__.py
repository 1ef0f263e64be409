"""Metrics: what is counted and timed, from which spans, and where it is sent."""
