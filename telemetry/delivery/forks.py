"""Prepare files and threads for a fork of the process."""

import os
from functools import cache
from typing import Protocol
from weakref import WeakSet

from telemetry import pipeline


class ForkAware(Protocol):
    """An object that handles forks: SQLite connections do not survive one, and a child has no threads of its parent."""

    def before_fork(self) -> None:
        """Pause until the fork is over."""

    def after_fork_in_parent(self) -> None:
        """Continue."""

    def after_fork_in_child(self) -> None:
        """Start again without the pending spans, which belong to the parent."""


class _ForkAware(WeakSet[ForkAware]):
    """All such objects of this process."""


def watch_forks(part: ForkAware) -> None:
    """Call the methods of this object at each fork, as long as it exists."""
    pipeline.shared(_ForkAware).add(part)
    _register()


@cache
def _register() -> None:
    # The same objects are called after the fork as before it, whatever was created or collected meanwhile.
    held: list[ForkAware] = []

    def before() -> None:
        held.extend(pipeline.shared(_ForkAware))
        for part in held:
            part.before_fork()

    def in_parent() -> None:
        while held:
            held.pop().after_fork_in_parent()

    def in_child() -> None:
        while held:
            held.pop().after_fork_in_child()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)
