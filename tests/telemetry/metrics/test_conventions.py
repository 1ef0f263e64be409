"""Names, units, kinds, attributes and bucket boundaries, held to the conventions."""

import re

import pytest

from telemetry.metrics.figures import FIGURES
from telemetry.metrics.instruments import RECORDED, Instrument
from telemetry.metrics.prometheus_names import prometheus_name
from tests.processes import ROOT

# The registry of open-telemetry/semantic-conventions-genai, as of November 2026 (all at level "development"):
# unit, instrument, attributes that are required, further ones, bucket boundaries.
_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_CALL = {"gen_ai.operation.name", "gen_ai.provider.name"}
_ABOUT_CALL = {"gen_ai.request.model", "gen_ai.response.model", "server.address", "server.port"}
REGISTRY: dict[str, tuple[str, str, set[str], set[str], tuple[float, ...]]] = {
    "gen_ai.client.token.usage": (
        "{token}",
        "histogram",
        {*_CALL, "gen_ai.token.type"},
        _ABOUT_CALL,
        (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864),
    ),
    "gen_ai.client.operation.duration": ("s", "histogram", _CALL, {*_ABOUT_CALL, "error.type"}, _SECONDS),
    "gen_ai.client.operation.time_to_first_chunk": ("s", "histogram", _CALL, _ABOUT_CALL, _SECONDS),
    "gen_ai.invoke_agent.duration": (
        "s",
        "histogram",
        set(),
        {"error.type", "gen_ai.agent.name", "gen_ai.request.model"},
        (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 102.4, 204.8, 409.6),
    ),
    "gen_ai.execute_tool.duration": (
        "s",
        "histogram",
        {"gen_ai.tool.name"},
        {"error.type", "gen_ai.agent.name", "gen_ai.tool.type"},
        _SECONDS,
    ),
}
# Attributes of the registry that our own metrics use as well.
PUBLISHED = {"gen_ai.agent.name", "gen_ai.provider.name", "gen_ai.request.model", "gen_ai.evaluation.name"}
# Words of our own, because nobody has published any.
OURS = {"turn.status", "quantile", "reason", "action", "backend"}
EVERY = (*RECORDED, *(instrument for instrument, _ in FIGURES))


def by_name(instrument: Instrument) -> str:
    return instrument.name


@pytest.mark.parametrize("instrument", [each for each in RECORDED if each.name.startswith("gen_ai.")], ids=by_name)
def test_a_metric_of_the_conventions(instrument: Instrument) -> None:
    """A name of the conventions has their unit, instrument, boundaries, required attributes and no unknown ones."""
    unit, kind, required, further, boundaries = REGISTRY[instrument.name]
    assert (instrument.unit, instrument.kind, instrument.boundaries) == (unit, kind, boundaries)
    assert required <= set(instrument.attributes) <= required | further


def test_none_is_missing() -> None:
    """Each of those metrics that a client, an agent and a tool should have is recorded."""
    assert REGISTRY.keys() <= {instrument.name for instrument in RECORDED}


@pytest.mark.parametrize("instrument", [each for each in EVERY if not each.name.startswith("gen_ai.")], ids=by_name)
def test_a_metric_of_our_own(instrument: Instrument) -> None:
    """It is in a namespace of ours, in units of UCUM, and what it borrows from the registry is spelled as there."""
    assert re.fullmatch(r"(agent|telemetry)(\.[a-z]+)+", instrument.name)
    assert re.fullmatch(r"s|By|1|\{\w+\}", instrument.unit)
    assert set(instrument.attributes) <= PUBLISHED | OURS


def test_the_table() -> None:
    """docs/metrics.md lists exactly the instruments that there are, with their kind, unit and attributes."""
    rows = re.findall(
        r"^\| `((?:gen_ai|agent|telemetry)\.[^`]+)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|", DOCUMENT, re.MULTILINE
    )
    expected = [
        (
            each.name,
            each.kind.removeprefix("observable "),
            f"`{each.unit}`",
            " ".join(f"`{key}`" for key in each.attributes),
            f"`{prometheus_name(each.name, each.unit, is_counter=each.kind.endswith('counter'))}`",
        )
        for each in EVERY
    ]
    assert rows == expected


ROW = re.compile(r"^\| `((?:gen_ai|agent|telemetry)\.[^`]+)` \| (.*?) \| (.*?) \| (.*?) \| (.*?) \|", re.MULTILINE)
DOCUMENT = (ROOT / "docs" / "metrics.md").read_text()
