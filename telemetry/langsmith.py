"""The only place that knows the LangSmith SDK: feedback on runs, for those who still look there."""

import logging
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING, Any
from uuid import UUID

from telemetry.delivery.post import Answer
from telemetry.scores.score import Score
from telemetry.settings import Settings

if TYPE_CHECKING:
    from langsmith import Client


class Feedback:
    """Delivers scores as feedback on their runs; it traces nothing."""

    def __init__(self, settings: Settings) -> None:
        import_module("langsmith.client")  # before its thread needs it, beside a program that imports the same
        self._settings = settings
        self._client: Client | None = None
        self._project_id: UUID | None = None

    def __call__(self, score: Score) -> Answer:
        """Return what LangSmith says to it; never raises. 404 means that it does not know the run, or the feedback."""
        from langsmith.utils import LangSmithConflictError

        if not score.run_id:
            return Answer(422, "a score without a run is nothing to LangSmith")
        try:
            try:
                self._send(self._connected(), score)
            except LangSmithConflictError:
                self._connected().update_feedback(score.score_id, **_content(score))
        except Exception as error:  # noqa: BLE001 - whatever the SDK raises, the score stays where it is
            return Answer(_status(error), (str(error).strip().splitlines() or [type(error).__name__])[0][:300])
        return Answer(200)

    def _send(self, client: "Client", score: Score) -> None:
        if score.value is None:
            client.delete_feedback(score.score_id)
        else:
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

            # It logs each failure with its traceback; what comes of a score is told by `stats()`.
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
    return next((status for each in _causes(error) if (status := _of_response(each))), None)


def _of_response(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _is_no_retry(record: logging.LogRecord) -> bool:
    return record.getMessage() != "Error creating feedback"
