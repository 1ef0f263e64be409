"""What can be done from the pages: score, delete, add to a dataset, and import; plain forms, without JavaScript.

The browser guard refuses them when a page of another site sends them.
"""

from typing import Annotated, Literal
from urllib.parse import quote
from uuid import NAMESPACE_OID, uuid5

from fastapi import APIRouter, File, Form, HTTPException, Request, UploadFile
from fastapi.responses import RedirectResponse, Response

from telemetry.export import otlp
from telemetry.viewer.access import Reader
from telemetry.viewer.datasets import NewDataset, NewItem, dataset_names, store_dataset, store_item
from telemetry.viewer.observation import Trace, parsed
from telemetry.viewer.render import page
from telemetry.viewer.score import Score
from telemetry.viewer.settings import PROJECT
from telemetry.viewer.store import Store
from telemetry.viewer.summary import TraceSummary

TRACE = f"/project/{PROJECT}/traces/{{trace_id}}"
# The score that the chat gives too.
THUMBS = "thumbs"
COMMENT = 2_000

router = APIRouter(dependencies=[Reader])


@router.post(f"{TRACE}/score")
def score_trace(
    request: Request,
    trace_id: str,
    thumbs: Annotated[Literal["up", "down", "none"], Form()],
    comment: Annotated[str, Form(max_length=COMMENT)] = "",
) -> Response:
    """Store what a reader thinks of a trace in place of what was said here before, or take it back."""
    _known(request, trace_id)
    score_id = str(uuid5(NAMESPACE_OID, f"viewer:{trace_id}"))
    if thumbs == "none":
        request.app.state.scores.delete(score_id)
    else:
        score = Score(
            id=score_id,
            trace_id=trace_id,
            name=THUMBS,
            value=float(thumbs == "up"),
            comment=comment.strip() or None,
            source="ANNOTATION",
        )
        request.app.state.scores.add([score])
    return _go(f"/project/{PROJECT}/traces/{trace_id}")


@router.get(f"{TRACE}/delete")
def confirm_deletion(request: Request, trace_id: str) -> Response:
    """Ask whether a trace is to be deleted."""
    return page(request, "delete.html", summary=_known(request, trace_id), live=0)


@router.post(f"{TRACE}/delete")
def delete_trace(request: Request, trace_id: str) -> Response:
    """Delete a trace with its scores."""
    _known(request, trace_id)
    _store(request).delete_trace(trace_id)
    return _go(f"/project/{PROJECT}/traces")


@router.get(f"{TRACE}/dataset")
def choose_dataset(request: Request, trace_id: str) -> Response:
    """Ask for the dataset that a trace's question and answer are added to."""
    names = dataset_names(_store(request))
    return page(request, "add.html", summary=_known(request, trace_id), names=names, live=0)


@router.post(f"{TRACE}/dataset")
def add_to_dataset(
    request: Request, trace_id: str, dataset: Annotated[str, Form(min_length=1, max_length=255)]
) -> Response:
    """Add the input and the output of a trace to a dataset, which is created if there is none of this name."""
    _known(request, trace_id)
    store = _store(request)
    observations = store.observations(trace_id)
    if dataset not in dataset_names(store):
        store_dataset(store, NewDataset(name=dataset))
    trace = Trace(trace_id, observations)
    shown = next((each for each in (trace.root, *observations) if each and each.input is not None), observations[0])
    item = NewItem(
        dataset_name=dataset,
        id=str(uuid5(NAMESPACE_OID, f"{dataset}:{trace_id}")),
        input=parsed(shown.input),
        expected_output=parsed(shown.output),
        source_trace_id=trace_id,
        source_observation_id=shown.id,
    )
    store_item(store, item)
    return _go(f"/project/{PROJECT}/datasets/{quote(dataset)}")


@router.get(f"/project/{PROJECT}/import")
def show_import(request: Request) -> Response:
    """Ask for a file of traces."""
    return page(request, "import.html", live=0)


@router.post(f"/project/{PROJECT}/import")
def import_file(request: Request, file: Annotated[UploadFile, File()]) -> Response:
    """Store the spans of a file in OTLP JSON, gzip or not."""
    body = file.file.read(otlp.LIMIT + 1)
    encoding = "gzip" if body.startswith(b"\x1f\x8b") else None
    try:
        spans = otlp.decode(body, "application/json", encoding)
    except otlp.TooLarge as error:
        raise HTTPException(413, str(error)) from error
    except otlp.Malformed as error:
        raise HTTPException(400, f"The file has no traces in OTLP JSON: {error}") from error
    _store(request).add_spans(spans)
    ids = {span.trace_id for span in spans}
    return _go(f"/project/{PROJECT}/traces" + (f"/{ids.pop()}" if len(ids) == 1 else ""))


def _known(request: Request, trace_id: str) -> TraceSummary:
    if summary := _store(request).trace(trace_id):
        return summary
    raise HTTPException(404, f"There is no trace {trace_id:.50}.")


def _go(address: str) -> Response:
    """Redirect, so that loading the page again does not send the form again."""
    return RedirectResponse(address, 303)


def _store(request: Request) -> Store:
    return request.app.state.store
