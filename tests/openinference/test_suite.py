"""OpenInference's own tests of its LangChain instrumentor, with this pipeline in its place.

They are fetched, never committed: OPENINFERENCE_SUITE names the folder of the instrumentor in a checkout of
Arize-ai/openinference. They need vcrpy, pytest-recording, pytest-rerunfailures, respx, pandas, langchain-classic,
langchain-community, langchain-anthropic and langchain-google-vertexai beside the locked packages, and no network.
"""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT

logger = logging.getLogger(__name__)

SUITE = os.environ.get("OPENINFERENCE_SUITE", "")
PLUGIN = ["-p", "plug"]
pytestmark = [pytest.mark.matrix, pytest.mark.skipif(not SUITE, reason="OPENINFERENCE_SUITE names no checkout")]


def failing(*options: str, **env: str) -> set[str]:
    """Return the names of the tests that fail."""
    here = Path(__file__).parent
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:rerunfailures", "-rfE", *options]
    found = {**os.environ, "PYTHONPATH": f"{ROOT}:{here}", "OPENAI_API_KEY": "sk-", **env}
    # The stock instrumentor is the installed one, not that of the checkout.
    done = subprocess.run(
        [*run, f"{SUITE}/tests"], env=found, cwd=SUITE, capture_output=True, text=True, timeout=3000, check=False
    )
    counted = re.search(r"^.*\d+ passed.*$", done.stdout, re.MULTILINE)
    assert counted, done.stdout[-2000:] + done.stderr[-2000:]
    # Shown with `--log-cli-level INFO`: these are the figures of docs/migrate.md.
    logger.info("%s: %s", env.get("TELEMETRY_LANGCHAIN", "stock"), counted[0])
    return set(re.findall(r"^(?:FAILED|ERROR) \S*?::(.*?)(?: - .*)?$", done.stdout, re.MULTILINE))


@pytest.fixture(scope="module")
def stock() -> set[str]:
    return failing()


@pytest.mark.parametrize("recorder", ["openinference", "recorder"])
def test_what_stock_passes_is_passed(recorder: str, stock: set[str]) -> None:
    """But for what docs/migrate.md lists as different."""
    found = failing(*PLUGIN, TELEMETRY_LANGCHAIN=recorder, TELEMETRY_SHAPE="openinference")
    assert {name for name in found - stock if name.split("[")[0] not in DIFFERENT} == set()


# Each belongs to a row of docs/migrate.md.
DIFFERENT = {
    # An image in a `data:` URL.
    "test_image_in_message",
    "test_chat_with_config_hiding_inputs",
    "test_chat_with_config_hiding_outputs",
    "test_separate_trace_from_runtime_context",
}
