"""Deliver spans and scores: store them on disk, then send them until a backend has accepted them."""
