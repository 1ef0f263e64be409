"""What gitleaks tries its own rules with, sent as a program sends it: `make gitleaks`, where there is Go."""

import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import telemetry
from telemetry.export import otlp
from telemetry.export.stages import build_stages, prepare_all
from telemetry.settings import Settings
from telemetry.testing import recording

MODULE = "github.com/zricethezav/gitleaks/v8"
VERSION = "v8.30.1"
MIN_CAUGHT = 0.99
# Of texts that hold none of gitleaks' secrets many hold somebody else's, or look exactly like one.
MAX_CHANGED = 0.28

pytestmark = pytest.mark.skipif(
    not os.environ.get("GITLEAKS") or not shutil.which("go"), reason="GITLEAKS is not set, or there is no Go"
)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Each rule of gitleaks with its samples, which are made when its configuration is."""
    folder = tmp_path_factory.mktemp("gitleaks")

    def go(*arguments: str, at: Path = folder) -> str:
        return subprocess.run(["go", *arguments], cwd=at, check=True, capture_output=True, text=True).stdout

    go("mod", "init", "samples")
    go("get", f"{MODULE}@{VERSION}")
    source = folder / "source"
    shutil.copytree(go("list", "-m", "-f", "{{.Dir}}", MODULE).strip(), source, copy_function=shutil.copy)
    for path in (source, *source.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    config = source / "cmd" / "generate" / "config"
    validate = config / "utils" / "validate.go"
    validate.write_text(validate.read_text().replace("func Validate(", "func validate("))
    shutil.copy(Path(__file__).with_name("samples.go"), config / "utils")
    written = go("run", "main.go", str(folder / "rules.toml"), at=config)
    return [json.loads(line) for line in written.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def arrived(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Each sample as an attribute of a span, and what is left of it in the request that a backend gets."""
    texts = [text for row in rows for text in (*row["secrets"], *(row["harmless"] or ()))]
    with recording() as spans:
        for at, text in enumerate(texts):
            with telemetry.span("sample") as span:
                span.set_attributes({"at": at, "note": text})
        body = b"".join(prepare_all(spans.settled(), build_stages(Settings())))
    sent = otlp.decode(body, "application/x-protobuf")
    return {texts[span.attributes["at"]]: span.attributes["note"] for span in sent}


def test_samples_of_secrets_stay_here(rows: list[dict[str, Any]], arrived: dict[str, str]) -> None:
    """Of all samples nearly none leaves whole, and of no rule all do."""
    total, left = Counter[str](), Counter[str]()
    for row in rows:
        for text, secrets in row["secrets"].items():
            total[row["rule"]] += len(secrets)
            left[row["rule"]] += sum(secret.strip("'\"`\n ;") in arrived[text] for secret in secrets)

    print(f"{left.total()} of {total.total()} samples leave: {dict(+left)}")  # noqa: T201 - what is asked for
    assert total.total() > 6_000
    assert left.total() <= total.total() * (1 - MIN_CAUGHT)
    assert [rule for rule in left if left[rule] == total[rule]] == []


def test_texts_without_secrets_mostly_stay_as_they_are(rows: list[dict[str, Any]], arrived: dict[str, str]) -> None:
    """What gitleaks knows to be no secret is left alone, unless it holds another vendor's or a placeholder of one."""
    harmless = [text for row in rows for text in row["harmless"] or ()]
    changed = [text for text in harmless if arrived[text] != text]

    print(f"{len(changed)} of {len(harmless)} texts without secrets are changed")  # noqa: T201 - what is asked for
    assert len(changed) <= len(harmless) * MAX_CHANGED
