"""Every attribute that we write is a published one, or is listed here as our own."""

import re
from importlib import import_module
from pkgutil import iter_modules

import openinference.semconv.trace as openinference
import opentelemetry.semconv._incubating.attributes as incubating
import opentelemetry.semconv.attributes as stable
from openinference.semconv.trace import OpenInferenceSpanKindValues
from opentelemetry.semconv._incubating.attributes.deployment_attributes import DEPLOYMENT_ENVIRONMENT_NAME
from opentelemetry.semconv.attributes.service_attributes import SERVICE_NAME, SERVICE_VERSION

from tests.processes import ROOT

# What we say in words of our own, because nobody has published any.
OURS = {
    "abandoned": "a span that nobody could stop",
    "cancelled": "a span that was stopped; no error",
    "event.*": "what a front end says of what happened",
    "feedback.key": "what was judged",
    "feedback.run_id": "the run that was judged",
    "file.count": "files that were listed",
    "logfire.msg": "what Langfuse shows as the title of a trace, before its name",
    "file.id": "our id of a file",
    "file.type": "its media type",
    "input.preview": "the beginning of a tool's input, in one line",
    "interrupted": "a node that asked a person; no error",
    "late": "what began after the turn's end, in a thread that nobody could stop",
    "output.sha256": "hash of a tool's result",
    "progress.*": "how far a background run is",
    "python.*": "what a piece of Python used",
    "status": "a background run's, on a heartbeat",
    "stream.*": "figures of a stream",
    "task.*": "figures of a task",
    "tool.*": "figures of a tool's call",
    "turn.*": "figures of a turn",
}
# Langfuse's own, as its documentation lists them; `*` stands for a key of metadata.
LANGFUSE = {
    "langfuse.observation.completion_start_time",
    "langfuse.observation.cost_details",
    "langfuse.observation.input",
    "langfuse.observation.level",
    "langfuse.observation.metadata.*",
    "langfuse.observation.output",
    "langfuse.observation.status_message",
    "langfuse.release",
    "langfuse.trace.metadata.*",
    "langfuse.trace.name",
    "langfuse.trace.tags",
}


def published_by_otel() -> set[str]:
    """Every attribute of the registry that the semantic conventions' package holds."""
    names: set[str] = set()
    for package in (stable, incubating):
        for module in iter_modules(package.__path__, f"{package.__name__}."):
            found = vars(import_module(module.name))
            names |= {value for name, value in found.items() if name.isupper() and isinstance(value, str)}
    return names


def published_by_openinference() -> set[str]:
    """Every attribute that OpenInference's conventions hold; those of a list without their number."""
    groups = [value for name, value in vars(openinference).items() if name.endswith("Attributes")]
    return {value for group in groups for name, value in vars(group).items() if name.isupper()}


def written() -> set[str]:
    """The attributes in docs/spans.md, which a test holds to what is really made."""
    text = (ROOT / "docs" / "spans.md").read_text()
    cells = [cell for line in text.splitlines() if line.startswith("|") for cell in line.split("|")[1:-1]]
    named = [name for cell in cells for name in re.findall(r"`([a-z_0-9]+(?:\.[a-z_0-9*]+)*)`", cell)]
    spans = {
        re.match(r"\| `([^`]+)`", line) for line in text.splitlines() if re.match(r"\| `[^`]+` \| [A-Z]+ \|", line)
    }
    return set(named) - {match[1] for match in spans if match}


def is_ours(name: str) -> bool:
    return any(re.fullmatch(known.replace(".", r"\.").replace("*", ".+"), name) for known in (*OURS, *LANGFUSE))


def test_every_attribute_is_published_or_listed() -> None:
    """A name that looks standard is standard: of OpenTelemetry's registry, OpenInference's or Langfuse's."""
    assert written()
    unknown = written() - published_by_otel() - published_by_openinference()
    assert {name for name in unknown if not is_ours(name)} == set()


def test_our_own_names_are_in_nobodys_way() -> None:
    """None of our own names is one that somebody has published with a meaning of their own."""
    assert set(OURS) & (published_by_otel() | published_by_openinference()) == set()


def test_kinds_are_openinferences() -> None:
    """A span means what OpenInference has a word for."""
    text = (ROOT / "docs" / "spans.md").read_text()
    kinds = set(re.findall(r"^\| `[^|]+` \| [A-Z]+ \| ([A-Z]+) \|", text, re.MULTILINE))
    assert kinds
    assert kinds <= {kind.value for kind in OpenInferenceSpanKindValues}


def test_the_resource_is_named_as_published() -> None:
    """Service, release and environment are told under the registry's names."""
    source = (ROOT / "telemetry" / "provider.py").read_text()
    for name in (SERVICE_NAME, SERVICE_VERSION, DEPLOYMENT_ENVIRONMENT_NAME):
        assert f'"{name}"' in source
