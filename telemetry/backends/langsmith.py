"""Send scores to LangSmith as feedback on runs; the only file that imports its SDK."""

import logging
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any
from uuid import UUID

from telemetry.delivery.http import Response
from telemetry.scores.score import Score
from telemetry.settings import Settings

if TYPE_CHECKING:
    from langsmith import Client


class LangsmithFeedback:
    """Sends scores as feedback on their runs; it creates no traces."""

    def __init__(self, settings: Settings) -> None:
        import_module("langsmith.client")  # before its thread, which might import it at the same time as the program
        self._settings = settings
        self._client: Client | None = None
        self._project_id: UUID | None = None

    def send(self, score: Score) -> Response:
        """Create the feedback, or update the one with this id; never raise. 404 means that the run is not known."""
        from langsmith.utils import LangSmithConflictError

        def send() -> None:
            try:
                self._create(self._connected(), score)
            except LangSmithConflictError:
                self._connected().update_feedback(score.score_id, **_content(score))

        return self._answer(score, send)

    def delete(self, score: Score) -> Response:
        """Delete the feedback with this id; never raise. 404 means that it is not known."""
        return self._answer(score, lambda: self._connected().delete_feedback(score.score_id))

    def read(self, score: Score) -> Response:  # noqa: ARG002 - the protocol's signature
        """Return 501: there is no need to check, LangSmith deletes at once."""
        return Response(501)

    def close(self) -> None:
        """Leave the connections to the SDK, which closes them with the process."""

    def _answer(self, score: Score, ask: Callable[[], None]) -> Response:
        if not score.run_id:
            return Response(422, "LangSmith needs the run of a score")
        try:
            ask()
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the score stays where it is
            return Response(_status(error), (str(error).strip().splitlines() or [type(error).__name__])[0][:300])
        return Response(200)

    def _create(self, client: "Client", score: Score) -> None:
        client.create_feedback(
            score.run_id,
            score.name,
            feedback_id=score.score_id,
            session_id=self._project(client),
            start_time=score.at,
            stop_after_attempt=1,
            **_content(score),
        )

    def _project(self, client: "Client") -> UUID:
        # Newer servers find a run by its project and its time only.
        if self._project_id is None:
            self._project_id = client.read_project(project_name=self._settings.langsmith_project).id
        return self._project_id

    def _connected(self) -> "Client":
        if self._client is None:
            from langsmith import Client
            from langsmith.schemas import LangSmithInfo

            # It logs each failure with a traceback; `stats()` reports failures instead.
            logging.getLogger("langsmith.client").addFilter(_is_no_retry)
            key = self._settings.langsmith_api_key
            self._client = Client(
                self._settings.langsmith_endpoint,
                api_key=key.get_secret_value() if key else None,
                auto_batch_tracing=False,
                info=LangSmithInfo(),
                timeout_ms=round(self._settings.timeout * 1000),
            )
        return self._client


def _content(score: Score) -> dict[str, Any]:
    value = {"value": score.value} if isinstance(score.value, str) else {"score": score.value}
    return {**value, "comment": score.comment}


def _status(error: BaseException) -> int | None:
    for cause in _causes(error):
        if status := getattr(getattr(cause, "response", None), "status_code", None):
            return status
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _is_no_retry(record: logging.LogRecord) -> bool:
    return record.getMessage() != "Error creating feedback"
