"""The program's own Langfuse SDK works as if tracing were not set up, and its spans stand in one tree with ours."""

from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from telemetry.testing import Receiver, span_tree
from tests.processes import run_code

OBSERVED = """
    @observe()
    def outer():
        with telemetry.span("ours"):
            inner()

    @observe(as_type="tool")
    def inner():
        with telemetry.span("ours below"):
            pass
        return "done"

    outer()
"""
ENDS = ("get_client().flush()", "telemetry.shutdown()")
ONE_TREE = """\
outer
  ours
    inner
      ours below"""


@pytest.fixture
def langfuse() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@pytest.fixture
def other() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def run(code: str, folder: Path, langfuse: Receiver, **environ: str) -> str:
    """What the program prints; it ends well."""
    keys = {
        "LANGFUSE_PUBLIC_KEY": "pk-lf-test",
        "LANGFUSE_SECRET_KEY": "sk-lf-test",
        "LANGFUSE_HOST": langfuse.endpoint,
    }
    done = run_code(dedent(code), env={**keys, "TELEMETRY_SPOOL_DIR": str(folder), **environ})
    assert done.returncode == 0, done.stderr
    return done.stdout


def program(*steps: str) -> str:
    return "import telemetry\nfrom langfuse import Langfuse, get_client, observe\n" + "\n".join(map(dedent, steps))


@pytest.mark.parametrize(
    "steps",
    [
        ("telemetry.configure('s')", OBSERVED),
        ("telemetry.configure('s')", "Langfuse()", OBSERVED),
        ("Langfuse()", "telemetry.configure('s')", OBSERVED),
        ("get_client()", "telemetry.configure('s')", "telemetry.get_client()", OBSERVED),
    ],
    ids=["made by observe", "made after", "made before", "both clients"],
)
def test_spans_of_both_are_one_tree_and_each_is_sent_once(
    steps: tuple[str, ...], langfuse: Receiver, tmp_path: Path
) -> None:
    """Whichever comes first, each span reaches Langfuse once, with its parent."""
    run(program(*steps, "get_client().flush()", "telemetry.shutdown()"), tmp_path, langfuse)

    assert span_tree(langfuse.spans) == ONE_TREE


def test_a_client_for_another_project_sends_by_itself(langfuse: Receiver, other: Receiver, tmp_path: Path) -> None:
    """Only what would reach the same project twice is kept from the SDK: another project gets its spans from it."""
    code = program(
        "telemetry.configure('s')",
        f"client = Langfuse(public_key='pk-lf-b', secret_key='sk-lf-b', base_url={other.endpoint!r})",
        "with client.start_as_current_observation(name='theirs'): pass",
        "client.flush()",
        "telemetry.shutdown()",
    )
    run(code, tmp_path, langfuse)

    assert [span.name for span in other.spans] == ["theirs"]


def test_with_another_backend_the_sdk_is_left_alone(langfuse: Receiver, other: Receiver, tmp_path: Path) -> None:
    """Where our spans go elsewhere, the program's Langfuse gets what it got before."""
    steps = ("telemetry.configure('s')", OBSERVED, "get_client().flush()", "telemetry.shutdown()")
    run(program(*steps), tmp_path, langfuse, OTEL_EXPORTER_OTLP_ENDPOINT=other.endpoint)

    assert sorted(span.name for span in langfuse.spans) == ["inner", "outer"]
    assert span_tree(other.spans) == ONE_TREE


def test_an_experiment_of_the_sdk_is_recorded(langfuse: Receiver, tmp_path: Path) -> None:
    """Each item of an experiment is a trace with what its task did below it."""
    code = program(
        "telemetry.configure('s')",
        """
        def task(*, item, **_):
            with telemetry.span("work"):
                return item["input"] * 2

        result = get_client().run_experiment(name="double", data=[{"input": 1}, {"input": 2}], task=task)
        print([each.output for each in result.item_results])
        """,
        "get_client().flush()",
        "telemetry.shutdown()",
    )
    assert run(code, tmp_path, langfuse).strip() == "[2, 4]"

    tree = "experiment-item-run\n  experiment-item-task\n    work"
    assert span_tree(langfuse.spans) == f"{tree}\n{tree}"


def test_a_mask_of_the_program_masks_its_spans(langfuse: Receiver, tmp_path: Path) -> None:
    """Where the SDK is given a function that masks spans as they are sent, what it sends has passed that function."""
    code = program(
        """
        from langfuse.types import MaskOtelSpansResult, OtelSpanPatch

        def mask(*, params):
            masked = OtelSpanPatch(set_attributes={"langfuse.observation.input": "masked"})
            return MaskOtelSpansResult(span_patches=dict.fromkeys(params.spans, masked))

        telemetry.configure('s')
        client = Langfuse(mask_otel_spans=mask)
        with client.start_as_current_observation(name="theirs", input="plain"), telemetry.span("ours"):
            pass
        """,
        *ENDS,
    )
    run(code, tmp_path, langfuse)

    assert span_tree(langfuse.spans) == "theirs\n  ours"
    (theirs,) = [span for span in langfuse.spans if span.name == "theirs"]
    assert theirs.attributes["langfuse.observation.input"] == "masked"


def test_media_of_the_sdk_stay_linked(langfuse: Receiver, tmp_path: Path) -> None:
    """The SDK uploads a file itself, and its span refers to it."""
    code = program(
        """
        from langfuse.media import LangfuseMedia

        telemetry.configure('s')
        photo = LangfuseMedia(content_bytes=b"\\x89PNG" * 2_000, content_type="image/png")
        with get_client().start_as_current_observation(name="theirs", input={"photo": photo}):
            pass
        """,
        *ENDS,
    )
    run(code, tmp_path, langfuse)

    (theirs,) = langfuse.spans
    assert "@@@langfuseMedia:type=image/png|id=" in str(theirs.attributes["langfuse.observation.input"])


CHAIN = """
    from langchain_core.runnables import RunnableLambda
    from langfuse.langchain import CallbackHandler

    chain = RunnableLambda(lambda x: x + 1) | RunnableLambda(lambda x: x * 2)
    for _ in range(2):
        assert chain.invoke(1, {"callbacks": [CallbackHandler()]}) == 4
"""


@pytest.mark.parametrize("recorder", ["openinference", "recorder"])
def test_the_handler_of_the_sdk_is_warned_of_once(recorder: str, langfuse: Receiver, tmp_path: Path) -> None:
    """Its spans and ours tell the same twice: one sentence says so, and what to do."""
    log = "import logging; logging.basicConfig(format='%(message)s', stream=__import__('sys').stdout)"
    code = program(log, "telemetry.configure('s')", CHAIN, *ENDS)
    said = run(code, tmp_path, langfuse, TELEMETRY_LANGCHAIN=recorder)

    assert [line for line in said.splitlines() if "CallbackHandler" in line] == [
        "Langfuse's CallbackHandler is among the callbacks of a run that is recorded already: its model calls, "  # noqa: ISC004 - one sentence
        "their tokens and their cost are counted twice. Remove the handler (docs/migrate.md)."
    ]


@pytest.mark.parametrize("recorder", ["openinference", "recorder"])
def test_the_handler_of_the_sdk_works_beside_another_backend(
    recorder: str, langfuse: Receiver, other: Receiver, tmp_path: Path
) -> None:
    """Where our spans go elsewhere, it doubles nothing: each backend has each run once, and nobody is warned."""
    log = "import logging; logging.basicConfig(format='%(message)s', stream=__import__('sys').stdout)"
    code = program(log, "telemetry.configure('s')", CHAIN, *ENDS)
    said = run(code, tmp_path, langfuse, OTEL_EXPORTER_OTLP_ENDPOINT=other.endpoint, TELEMETRY_LANGCHAIN=recorder)

    assert "CallbackHandler" not in said
    assert sorted(span.name for span in langfuse.spans) == ["RunnableLambda"] * 4 + ["RunnableSequence"] * 2
    assert len({span.name for span in other.spans} & {"RunnableSequence", "RunnableLambda"}) == 2
