"""A way to a server of the tests' own that can be cut: as a network that loses every packet, without a word."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Proxy:
    """Passes bytes on between callers and a server, until it is cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=200)
        self.port: int = self._listener.getsockname()[1]
        self._open = threading.Event()
        self._open.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Pass nothing on any more; callers are not told."""
        self._open.clear()

    def mend(self) -> None:
        """Pass on what new connections send; what was cut stays dead, as after a firewall has forgotten it."""
        dead, self._pairs = self._pairs, []
        self._open.set()
        for pair in dead:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End."""
        self.mend()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(caller,), daemon=True).start()

    def _connect(self, caller: socket.socket) -> None:
        self._open.wait()
        with suppress(OSError), caller, socket.create_connection(("127.0.0.1", self._target)) as target:
            self._pairs.append((caller, target))
            back = threading.Thread(target=self._pass_on, args=(target, caller), daemon=True)
            back.start()
            self._pass_on(caller, target)
            back.join()

    def _pass_on(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not self._open.is_set():
                    self._open.wait()  # it is lost, and neither end is told before the end of the cut
                    break
                sink.sendall(data)
        # Also after a reset.
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def proxy(port: int) -> Iterator[Proxy]:
    """A way to the server on this port."""
    passing = Proxy(port)
    try:
        yield passing
    finally:
        passing.close()
