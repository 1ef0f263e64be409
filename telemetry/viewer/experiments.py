"""Experiments on Langfuse's own paths: what the spans of an experiment say of it and of its items."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Request, Response
from pydantic_core import to_json

from telemetry.viewer.access import Keys, Parameters
from telemetry.viewer.api import conditions_of, page_of, parse_fields
from telemetry.viewer.observation import Observation, experiment_of, parsed
from telemetry.viewer.query import (
    ExperimentItemQuery,
    ExperimentQuery,
    experiment_cursor,
    observation_cursor,
)
from telemetry.viewer.record import Record, iso, raw
from telemetry.viewer.store import SCORE, SPAN, Condition, Store

GROUPS = {"core", "metadata", "scores"}
ITEM_GROUPS = {"core", "dataset", "io", "metadata", "itemMetadata", "experimentMetadata", "scores"}
# The newest experiments first, by what happened last in each; its description is on the roots of its items.
SUMMARIES = """
SELECT experiment, max(name), max(dataset), min(start), max(end), count(item), max(start),
(SELECT body FROM spans JOIN experiments AS root USING (trace_id, span_id)
WHERE root.experiment = experiments.experiment AND item IS NOT NULL ORDER BY root.start DESC LIMIT 1)
FROM experiments WHERE {where} GROUP BY experiment
HAVING (max(start), experiment) < (?, ?) ORDER BY max(start) DESC, experiment DESC LIMIT ?
"""
ITEMS = """
SELECT body FROM (SELECT trace_id, span_id, start FROM experiments WHERE {where}
ORDER BY start DESC, trace_id DESC, span_id DESC LIMIT ?) JOIN spans USING (trace_id, span_id)
ORDER BY spans.start DESC, trace_id DESC, span_id DESC
"""
SCORES = "SELECT body FROM scores WHERE experiment_id IN (SELECT value FROM json_each(?)) ORDER BY time DESC"
PREFIX = "langfuse.experiment."

router = APIRouter(prefix="/api/public", dependencies=[Keys, Parameters])


class Experiment(NamedTuple):
    """What an experiment's spans say of it together."""

    id: str
    name: str
    dataset: str | None
    start: int
    end: int
    items: int
    latest: int
    root: bytes | None

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes of the root of one of its items."""
        return SPAN.validate_json(self.root).attributes if self.root else {}


@router.get("/experiments")
def list_experiments(request: Request, query: Annotated[ExperimentQuery, Query()]) -> Response:
    """Return a page of the experiments with activity in a period, the latest first."""
    groups = parse_fields(query.fields, GROUPS)
    store: Store = request.app.state.store
    found = find_experiments(store, conditions_of(query), query.limit + 1, query.after())
    shown = found[: query.limit]
    scores = _scores(store, [each.id for each in shown], query.score_limit) if "scores" in groups else {}
    records = [_record(each, groups) | _scored(groups, scores.get(each.id, [])) for each in shown]
    more = len(found) > query.limit
    return page_of(records, query.limit, experiment_cursor(shown[-1].latest, shown[-1].id) if more else None)


@router.get("/experiment-items")
def list_experiment_items(request: Request, query: Annotated[ExperimentItemQuery, Query()]) -> Response:
    """Return a page of the items that were run in a period, the latest first."""
    groups = parse_fields(query.fields, ITEM_GROUPS)
    store: Store = request.app.state.store
    found = find_items(store, conditions_of(query), query.limit + 1)
    shown = found[: query.limit]
    scores = store.scores_of([each.span.trace_id for each in shown]) if "scores" in groups else {}
    records = [
        _item_record(each, groups)
        | _scored(
            groups,
            [score.record({"subject"}) for score in scores.get(each.span.trace_id, [])[::-1][: query.score_limit]],
        )
        for each in shown
    ]
    return page_of(records, query.limit, observation_cursor(shown[-1]) if len(found) > query.limit else None)


def find_experiments(
    store: Store, conditions: Sequence[Condition], count: int, after: Sequence[Any] = (2**63 - 1, "")
) -> list[Experiment]:
    """Return the experiments with spans that match, the latest first."""
    where, values = _joined(conditions)
    with store.reading() as db:
        rows = db.execute(SUMMARIES.format(where=where), (*values, *after, count)).fetchall()
    return [Experiment(*row) for row in rows]


def find_items(store: Store, conditions: Sequence[Condition], count: int) -> list[Observation]:
    """Return the roots of the items that match, the latest first."""
    where, values = _joined(conditions)
    with store.reading() as db:
        rows = db.execute(ITEMS.format(where=where), (*values, count)).fetchall()
    return [store.observation_of(body) for (body,) in rows]


def _joined(conditions: Sequence[Condition]) -> tuple[str, list[Any]]:
    where = " AND ".join(f"({sql})" for sql, _ in conditions) or "1"
    return where, [value for _, values in conditions for value in values]


def _scores(store: Store, experiments: Sequence[str], limit: int) -> dict[str, list[Record]]:
    found: dict[str, list[Record]] = defaultdict(list)
    with store.reading() as db:
        for (body,) in db.execute(SCORES, (to_json(experiments).decode(),)):
            score = SCORE.validate_json(body)
            if len(listed := found[score.dataset_run_id or ""]) < limit:
                listed.append(score.record({"subject"}))
    return found


def _scored(groups: set[str], scores: list[Record]) -> Record:
    return {"scores": scores} if "scores" in groups else {}


def _record(experiment: Experiment, groups: set[str]) -> Record:
    attributes = experiment.attributes
    record: Record = {
        "id": experiment.id,
        "name": experiment.name,
        "description": raw(attributes.get(f"{PREFIX}description")),
        "startTime": iso(experiment.start),
        "endTime": iso(experiment.end),
        "itemCount": experiment.items,
        "datasetId": experiment.dataset,
    }
    return record | ({"metadata": parsed(attributes.get(f"{PREFIX}metadata"))} if "metadata" in groups else {})


def _item_record(observation: Observation, groups: set[str]) -> Record:
    span, of, attributes = observation.span, experiment_of(observation), observation.attributes
    record: Record = {
        "id": span.span_id,
        "traceId": span.trace_id,
        "startTime": iso(span.start),
        "endTime": iso(span.end) if span.end else None,
        "level": observation.level,
        "environment": observation.environment,
        "experimentId": of.id if of else "",
        "experimentName": of.name if of else "",
        "experimentItemId": of.item_id if of else "",
    }
    more: dict[str, Record] = {
        "dataset": {
            "experimentDatasetId": of.dataset if of else None,
            "experimentItemVersion": attributes.get(f"{PREFIX}item.version"),
        },
        "io": {
            "input": raw(observation.input),
            "output": raw(observation.output),
            "expectedOutput": raw(attributes.get(f"{PREFIX}item.expected_output")),
        },
        "metadata": {"metadata": observation.metadata},
        "itemMetadata": {"experimentItemMetadata": parsed(attributes.get(f"{PREFIX}item.metadata")) or {}},
        "experimentMetadata": {
            "experimentMetadata": parsed(attributes.get(f"{PREFIX}metadata")) or {},
            "experimentDescription": raw(attributes.get(f"{PREFIX}description")),
        },
    }
    for group in groups & more.keys():
        record |= more[group]
    return record
