"""An experiment of the unchanged SDK over a graph, in a program that is traced by us."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

from langfuse import Langfuse
from opentelemetry.trace import format_span_id

from tests.processes import run_code
from tests.telemetry.viewer.conftest import Recorder, Viewer

PROGRAM = dedent("""
    import sys, telemetry
    from langchain_core.language_models import GenericFakeChatModel
    from langchain_core.messages import AIMessage
    from langfuse import Evaluation, get_client
    from langgraph.graph import START, MessagesState, StateGraph

    telemetry.configure("experiments")
    model = GenericFakeChatModel(messages=iter([AIMessage("Paris"), AIMessage("Rome"), AIMessage("Bonn")]))
    graph = StateGraph(MessagesState)
    graph.add_node("answer", lambda state: {"messages": [model.invoke(state["messages"])]})
    graph.add_edge(START, "answer")
    agent = graph.compile(name="capitals")

    def ask(*, item, **_):
        return agent.invoke({"messages": [("user", item.input)]})["messages"][-1].text

    def is_right(*, output, expected_output, **_):
        return Evaluation(name="is_right", value=float(output == expected_output))

    dataset = get_client().get_dataset(sys.argv[1])
    def share(*, item_results, **_):
        return Evaluation(name="share", value=sum(each.evaluations[0].value for each in item_results) / 3)

    result = dataset.run_experiment(
        name="first", description="Three of them", metadata={"place": "here"}, task=ask, evaluators=[is_right],
        run_evaluators=[share], max_concurrency=1,
    )
    print(*[item.trace_id for item in result.item_results])
    get_client().flush()
    telemetry.shutdown()
""")


def test_each_item_is_one_trace_with_its_graph_and_its_score(
    viewer: Viewer, langfuse: Langfuse, tmp_path: Path
) -> None:
    """The graph's spans are below the item's, scores hang on its trace, and nothing is sent twice."""
    langfuse.create_dataset(name="capitals")
    for country, capital in {"Germany": "Berlin", "Italy": "Rome", "France": "Paris"}.items():
        langfuse.create_dataset_item(dataset_name="capitals", input=country, expected_output=capital)
    public, secret = viewer.keys
    env = {
        "LANGFUSE_PUBLIC_KEY": public,
        "LANGFUSE_SECRET_KEY": secret,
        "LANGFUSE_HOST": viewer.url,
        "TELEMETRY_SPOOL_DIR": str(tmp_path / "spool"),
    }
    done = run_code(PROGRAM, "capitals", env=env)
    assert done.returncode == 0, done.stderr

    traces = done.stdout.split()
    assert len(traces) == len(set(traces)) == 3
    for trace_id, (asked, right) in zip(traces, {"France": 1.0, "Italy": 1.0, "Germany": 0.0}.items(), strict=True):
        spans = langfuse.api.observations.get_many(trace_id=trace_id, fields="core,basic,io").data
        names = Counter(span.name for span in spans)
        steps = ("experiment-item-run", "experiment-item-task", "experiment-item-evaluation", "is_right")
        assert names == dict.fromkeys((*steps, "capitals", "answer", "GenericFakeChatModel"), 1)
        (root,) = [span for span in spans if span.parent_observation_id is None]
        assert asked in str(root.input)
        (score,) = langfuse.api.scores.get_many(trace_id=trace_id).data
        assert (score.name, score.value) == ("is_right", right)

    dataset_id = langfuse.get_dataset("capitals").id
    start = datetime.now(UTC) - timedelta(hours=1)
    (experiment,) = langfuse.api.experiments.list(from_start_time=start, fields="core,metadata,scores").data
    assert (experiment.item_count, experiment.dataset_id, experiment.description) == (3, dataset_id, "Three of them")
    assert experiment.name.startswith("first")
    assert experiment.metadata
    assert experiment.metadata["place"] == "here"
    assert [(each.name, each.value) for each in experiment.scores or ()] == [("share", 2 / 3)]

    fields = "core,dataset,io,itemMetadata,experimentMetadata,scores"
    items = langfuse.api.experiments.list_items(from_start_time=start, fields=fields).data
    assert [(each.input, each.output, each.expected_output) for each in items] == [
        ("Germany", "Bonn", "Berlin"),
        ("Italy", "Rome", "Rome"),
        ("France", "Paris", "Paris"),
    ]
    assert {each.experiment_id for each in items} == {experiment.id}
    assert [each.trace_id for each in items] == traces[::-1]
    assert [score.value for each in items for score in each.scores or ()] == [0.0, 1.0, 1.0]
    assert {each.experiment_dataset_id for each in items} == {dataset_id}


def test_experiments_come_in_pages(viewer: Viewer, recorder: Recorder, langfuse: Langfuse) -> None:
    """Each is listed once, the one with the latest item first; a period, names and ids narrow the list."""
    for number in range(5):
        for item in range(2):
            with recorder.tracer.start_as_current_span("task") as span:
                about = {"id": f"e-{number}", "name": f"run {number % 2}", "dataset.id": "d", "item.id": f"i-{item}"}
                for name, value in {
                    **about,
                    "item.root_observation_id": format_span_id(span.get_span_context().span_id),
                }.items():
                    span.set_attribute(f"langfuse.experiment.{name}", value)
    viewer.send(recorder.spans)
    start = datetime.now(UTC) - timedelta(hours=1)

    def pages(read: Any, **query: Any) -> list[list[str]]:
        found, cursor = [], None
        while True:
            page = read(from_start_time=start, limit=2, cursor=cursor, **query)
            found.append([each.id for each in page.data])
            if not (cursor := page.meta.cursor):
                return found

    api = langfuse.api.experiments
    assert pages(api.list) == [["e-4", "e-3"], ["e-2", "e-1"], ["e-0"]]
    assert pages(api.list, name="run 0") == [["e-4", "e-2"], ["e-0"]]
    assert pages(api.list, id="e-1,e-3", dataset_id="d") == [["e-3", "e-1"]]
    assert pages(api.list, to_start_time=start) == [[]]
    items = [each for page in pages(api.list_items) for each in page]
    assert len(items) == len(set(items)) == 10
    assert len(pages(api.list_items, experiment_id="e-1", experiment_item_id="i-0")[0]) == 1
    condition = [{"type": "string", "column": "experimentName", "operator": "=", "value": "run 1"}]
    assert sum(map(len, pages(api.list_items, filter=json.dumps(condition)))) == 4
    for query in ("", "fromStartTime=2020-01-01T00:00:00Z&offset=3", "fromStartTime=2020-01-01T00:00:00Z&fields=all"):
        assert viewer.client.get(f"/api/public/experiments?{query}").status_code == 400
