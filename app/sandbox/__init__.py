"""Code that nobody has read, run where it can do little harm."""

from app.sandbox.run import Limits, Outcome, Refused, run

__all__ = ["Limits", "Outcome", "Refused", "run"]
