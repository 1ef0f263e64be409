"""A proxy before the page that says who its user is, as one that has asked for a password would."""

import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def naming_proxy(port: int, header: str, user: str) -> Iterator[str]:
    """The address of a proxy that names this user to whoever listens at the port."""

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port)) as target:
                head = self.request.recv(65_536)
                line, _, rest = head.partition(b"\r\n")
                target.sendall(line + f"\r\n{header}: {user}\r\n".encode() + rest)
                back = threading.Thread(target=_pass_on, args=(target, self.request), daemon=True)
                back.start()
                _pass_on(self.request, target)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def _pass_on(source: socket.socket, to: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            to.sendall(data)
    with suppress(OSError):
        to.shutdown(socket.SHUT_WR)
