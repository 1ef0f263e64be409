"""What can be told of the containers without running them."""

import re

import pytest
from pydantic import AliasChoices

import app.settings
import telemetry.settings
from tests.processes import ROOT

COMPOSE = (ROOT / "compose.yaml").read_text()
DOCKERFILES = ["Dockerfile.api", "Dockerfile.streamlit", "otel-collector/Dockerfile"]
NEWER_THAN_1_29 = r"^(name|include):|^\s+(develop|required|pull_policy):|:\+"


def test_compose_keeps_to_what_old_releases_take() -> None:
    """Nothing in compose.yaml is refused by docker-compose 1.29."""
    assert re.findall(NEWER_THAN_1_29, COMPOSE, re.MULTILINE) == []


def test_every_image_is_pinned() -> None:
    """Images that are not built here name a release."""
    images = re.findall(r"^\s+image: (?!agent-telemetry-)(\S+)$", COMPOSE, re.MULTILINE)
    assert images
    assert [image for image in images if not re.search(r":[\w.-]*\d", image)] == []


def test_ports_are_published_on_this_machine_only() -> None:
    """Each published port is bound to loopback."""
    published = [entry for line in re.findall(r"ports: \[(.*)\]", COMPOSE) for entry in line.split(", ")]
    assert published
    assert [entry for entry in published if not entry.startswith('"127.0.0.1:')] == []


@pytest.mark.parametrize("settings", [app.settings.ServiceSettings, telemetry.settings.Settings])
def test_every_setting_reaches_the_service(settings: type) -> None:
    """What .env says is passed on; where a container itself decides, compose.yaml or the image does."""
    own = {"HOST", "PORT", "DATA_DIR"}
    names = {name for field in settings.model_fields.values() for name in _names(field)} - own
    assert [name for name in sorted(names) if f" {name}:" not in COMPOSE] == []


def _names(field: object) -> list[str]:
    alias = getattr(field, "validation_alias", None) or getattr(field, "alias", None)
    return [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [str(alias)]


@pytest.mark.parametrize("dockerfile", DOCKERFILES)
def test_images_take_no_key_and_no_root(dockerfile: str) -> None:
    """Build arguments are the base and three that are no secret; the program runs as nobody in particular."""
    text = (ROOT / dockerfile).read_text()
    arguments = set(re.findall(r"^ARG (\w+)", text, re.MULTILINE))
    assert arguments <= {"BASE", "LANGFUSE_HOST", "LANGFUSE_ENVIRONMENT", "LANGFUSE_TRACING"}
    assert re.search(r"^USER 10001", text, re.MULTILINE)
    assert "HEALTHCHECK" in text
