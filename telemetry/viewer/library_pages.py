"""The pages of what the SDK keeps here: prompts, datasets, and the experiments over them."""

import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from telemetry.viewer.access import Reader
from telemetry.viewer.datasets import DATASET, ITEM, ITEMS, Dataset, Item
from telemetry.viewer.experiments import find_experiments, find_items
from telemetry.viewer.messages import Content, content_of
from telemetry.viewer.observation import Observation
from telemetry.viewer.prompts import LATEST, PROMPT, Prompt
from telemetry.viewer.render import page
from telemetry.viewer.settings import PROJECT
from telemetry.viewer.store import Store

# The most rows of a page.
ROWS = 200

router = APIRouter(prefix=f"/project/{PROJECT}", dependencies=[Reader])


@router.get("/prompts")
def show_prompts(request: Request) -> Response:
    """Show the newest version of each prompt."""
    newest = {prompt.name: prompt for prompt in _prompts(_store(request))}
    return page(request, "prompts.html", prompts=list(newest.values()), live=0)


@router.get("/prompts/{name:path}")
def show_prompt(request: Request, name: str) -> Response:
    """Show all versions of a prompt, the newest first."""
    versions = [prompt for prompt in _prompts(_store(request)) if prompt.name == name][::-1]
    shown = [
        (each, content_of(each.prompt), [*each.labels, *([LATEST] if each is versions[0] else [])]) for each in versions
    ]
    return _page(request, "prompt.html", name, shown, what="prompt")


@router.get("/datasets")
def show_datasets(request: Request) -> Response:
    """Show the datasets, by name."""
    store = _store(request)
    with store.reading() as db:
        rows = db.execute("SELECT body FROM datasets ORDER BY name").fetchall()
    datasets = [DATASET.validate_json(body) for (body,) in rows]
    sizes = {each.name: len(_items(store, each)) for each in datasets}
    return page(request, "datasets.html", datasets=datasets, sizes=sizes, live=0)


@router.get("/datasets/{name:path}")
def show_dataset(request: Request, name: str) -> Response:
    """Show the items of a dataset, which may be named by its id, and the experiments over it."""
    store = _store(request)
    with store.reading() as db:
        rows = db.execute("SELECT body FROM datasets").fetchall()
    found = [each for (body,) in rows if name in ((each := DATASET.validate_json(body)).name, each.id)]
    items = (
        [
            (each, *map(content_of, (each.input, each.expected_output, each.metadata)))
            for each in _items(store, found[0])
        ]
        if found
        else []
    )
    experiments = find_experiments(store, [("dataset = ?", [found[0].id])], ROWS) if found else []
    return _page(request, "dataset.html", name, found, what="dataset", items=items, experiments=experiments)


@router.get("/experiments")
def show_experiments(request: Request) -> Response:
    """Show the experiments, the latest first."""
    return page(request, "experiments.html", experiments=find_experiments(_store(request), [], ROWS), live=0)


@router.get("/experiments/results")
def show_experiment(request: Request, baseline: Annotated[str, Query(min_length=1)]) -> Response:
    """Show the items of an experiment, at the address that the SDK returns."""
    store = _store(request)
    found = find_experiments(store, [("experiment = ?", [baseline])], 1)
    items = find_items(store, [("item IS NOT NULL AND experiment = ?", [baseline])], ROWS)
    of_items = store.scores_of([each.span.trace_id for each in items])
    of_experiment = store.find_scores([("experiment_id = ?", [baseline])], ROWS)
    shown = [(each, *_sides(each), of_items[each.span.trace_id]) for each in items]
    return _page(request, "experiment.html", baseline, found, what="experiment", items=shown, scores=of_experiment)


def _page(request: Request, template: str, name: str, found: Sequence[Any], *, what: str, **values: Any) -> Response:
    if not found:
        return page(request, "unknown.html", 404, what=what, id=name, live=0)
    return page(request, template, found=found, name=name, live=0, **values)


def _sides(item: Observation) -> tuple[Content, Content, Content]:
    expected = item.attributes.get("langfuse.experiment.item.expected_output")
    return content_of(item.input), content_of(item.output), content_of(expected)


def _prompts(store: Store) -> list[Prompt]:
    with store.reading() as db:
        return [PROMPT.validate_json(body) for (body,) in db.execute("SELECT body FROM prompts ORDER BY name, version")]


def _items(store: Store, dataset: Dataset) -> list[Item]:
    with store.reading() as db:
        rows = db.execute(ITEMS, {"until": round(time.time() * 1e6), "dataset": dataset.name}).fetchall()
    items = [ITEM.validate_json(body) for (body,) in rows]
    return [each for each in items if each.status == "ACTIVE"][:ROWS]


def _store(request: Request) -> Store:
    return request.app.state.store
