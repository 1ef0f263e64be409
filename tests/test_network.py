"""The tests' own surroundings: dummy keys, and no way off this machine."""

import os
import socket

import pytest

from telemetry.settings import load_settings
from tests.conftest import DUMMY


def test_the_environment_holds_dummy_keys_only() -> None:
    """What a test reads from the environment are dummies, whatever the developer has set."""
    assert {name: value for name, value in os.environ.items() if name.startswith("LANGFUSE_")} == DUMMY
    assert load_settings().langfuse_url == "http://127.0.0.1:9"


@pytest.mark.parametrize("address", [("192.0.2.1", 443), ("2001:db8::1", 443)])
def test_no_connection_leaves_this_machine(address: tuple[str, int]) -> None:
    """A test that would reach another machine fails, whichever library it uses."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family) as out, pytest.raises(RuntimeError, match="wanted to reach"):
        out.connect(address)


def test_no_datagram_leaves_this_machine() -> None:
    """Nor does one that needs no connection, such as a question to a name server."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out, pytest.raises(RuntimeError, match="wanted to reach"):
        out.sendto(b"?", ("192.0.2.1", 53))
