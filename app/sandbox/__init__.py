"""Run untrusted code in isolation."""

from app.sandbox.run import Limits, Outcome, Refused, run

__all__ = ["Limits", "Outcome", "Refused", "run"]
