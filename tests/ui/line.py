"""The way from the page's process to the browser, held up as on a slow network."""

from playwright.sync_api import WebSocketRoute


class Line:
    """What the process says is passed on, or kept until it is released."""

    def __init__(self) -> None:
        self._held: list[str | bytes] | None = None

    def connect(self, browser: WebSocketRoute) -> None:
        page = browser.connect_to_server()
        self._send = browser.send
        page.on_message(self._pass_on)

    def hold(self) -> None:
        self._held = []

    def holds(self, part: bytes) -> bool:
        return any(isinstance(each, bytes) and part in each for each in self._held or ())

    def release(self) -> None:
        held, self._held = self._held or [], None
        for each in held:
            self._send(each)

    def _pass_on(self, message: str | bytes) -> None:
        if self._held is None:
            self._send(message)
        else:
            self._held.append(message)
