"""What tokens cost where no cost was sent: by one's own list, else by genai-prices, at the prices of the day."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from telemetry.viewer.observation import Observation
from telemetry.viewer.prices import Prices, read_prices
from telemetry.viewer.settings import ViewerSettings
from tests.processes import free_port, run
from tests.telemetry.viewer.conftest import Recorder, running
from tests.telemetry.viewer.test_timeline import span

MILLION = {"input": 1_000_000, "output": 1_000_000}
HEADER = "model,from,input,cache_read,cache_write,output\n"
OWN = f"""{HEADER}Mine,,1,0.1,,4
mine,2026-06-01,2,,,8
gpt-4o,,100,,,200
"""


def nano(day: str) -> int:
    """The noon of a day in Unix nanoseconds."""
    return int(datetime.fromisoformat(f"{day}T12:00").replace(tzinfo=UTC).timestamp()) * 10**9


@pytest.mark.parametrize(("day", "total"), [("2026-08-20", 35), ("2026-08-22", 24)])
def test_a_call_costs_what_it_did_on_its_day(day: str, total: float) -> None:
    """The price of a model that became cheaper is that of the day of the call, and says so."""
    usage = dict.fromkeys(MILLION, 100000)
    cost = Prices().cost_of("gpt-5.6-sol", None, usage, nano(day))
    assert cost.details["total"] == pytest.approx(total / 10)
    assert cost.source.startswith("genai-prices ")
    assert cost.source.endswith(f"prices of {day}")


@pytest.mark.parametrize(
    ("model", "provider", "total"),
    [
        ("gpt-4o", "openai", 12.5),
        ("gpt-4o", "azure.ai.openai", 12.5),
        ("openai/gpt-4o", "openai", 12.5),
        ("gpt-4o", "ollama", None),
        ("gpt-4o", "mistral_ai", None),
        ("x" * 201, None, None),
        ("", None, None),
    ],
)
def test_a_provider_has_its_own_prices(model: str, provider: str | None, total: float | None) -> None:
    """The price is that of the provider that was sent, and there is none if that one does not sell the model."""
    details = Prices().cost_of(model, provider, MILLION, nano("2026-08-01")).details
    assert details.get("total") == (pytest.approx(total) if total else None)


def test_all_tokens_of_an_embedding_are_input() -> None:
    """A call of which only the sum is known has a cost if it can have no output."""
    sent = {"llm.model_name": "text-embedding-3-small", "llm.token_count.total": 1_000_000}
    embedding, other = (
        Observation(span(1, None, "e", 0, 1).but(attributes=sent | {"openinference.span.kind": kind}))
        for kind in ("EMBEDDING", "LLM")
    )
    assert embedding.cost == pytest.approx(0.02)
    assert other.cost is None


@pytest.mark.parametrize(
    ("model", "day", "usage", "total"),
    [
        ("mine", "2026-05-31", MILLION, 5),
        ("MINE", "2026-06-01", MILLION, 10),
        ("mine", "2026-05-31", {"input_cached_tokens": 1_000_000, "input_cache_creation": 1_000_000}, 1.1),
        ("mine", "2026-06-01", {"input_cached_tokens": 1_000_000}, 2),
        ("gpt-4o", "2026-06-01", MILLION, 300),
        ("gpt-4o-2024-05-13", "2026-06-01", MILLION, 20),
    ],
)
def test_ones_own_prices_come_first(tmp_path: Path, model: str, day: str, usage: dict[str, int], total: float) -> None:
    """A row counts from its day on, an empty price of a cache is that of input, and other models keep their price."""
    (tmp_path / "prices.csv").write_text(OWN)
    prices = read_prices(tmp_path / "prices.csv")
    assert prices.cost_of(model, None, usage, nano(day)).details["total"] == pytest.approx(total)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("model,input\nm,1\n", "line 1: the columns must be model,from,input,cache_read,cache_write,output"),
        ("", "line 1: the columns must be"),
        (f"{HEADER}m,,1,,\n", "line 2: it must have as many values as there are columns"),
        (f"{HEADER}m,,1,,,2,3\n", "line 2: it must have as many values as there are columns"),
        (f"{HEADER}m,,1,,,2\n,,1,,,2\n", "line 3: it has no model"),
        (f"{HEADER}m,,one,,,2\n", "line 2: input must be dollars for a million tokens, not 'one'"),
        (f"{HEADER}m,,1,,,-2\n", "line 2: output must be"),
        (f"{HEADER}m,,1,,nan,2\n", "line 2: cache_write must be"),
        (f"{HEADER}m,1.6.2026,1,,,2\n", "line 2: from must be a day as 2026-01-31, or empty, not '1.6.2026'"),
        (f'{HEADER}"m,,1,,,2\n', "line 2: unexpected end of data"),
        (None, "No such file or directory"),
    ],
)
def test_a_bad_price_list_is_refused_at_the_start(tmp_path: Path, content: str | None, reason: str) -> None:
    """One sentence names the setting, the line, and what is wrong with it."""
    path = tmp_path / "prices.csv"
    if content is not None:
        path.write_text(content)
    env = {"VIEWER_PRICES": str(path), "VIEWER_PORT": str(free_port()), "VIEWER_DB": str(tmp_path / "v.db")}
    status, said = run("telemetry.viewer", env=env)
    assert status == 1
    [line] = said.splitlines()
    assert line.startswith(f"VIEWER_PRICES={path} cannot be used ({reason}")
    assert line.endswith("): correct the file, or remove the setting.")


def test_the_page_says_whose_prices_they_are(tmp_path: Path, recorder: Recorder, page: Page) -> None:
    """Beside a cost stand its source and its day; beside one that was sent, nothing."""
    (tmp_path / "prices.csv").write_text(f"{HEADER}mine,2026-01-01,1,,,4\n")
    with running(ViewerSettings(db=tmp_path / "v.db", prices=tmp_path / "prices.csv")) as viewer:
        tokens = {"llm.token_count.prompt": 1_000_000, "llm.token_count.completion": 1_000_000}
        with recorder.tracer.start_as_current_span("root"):
            for name in ("mine", "gpt-4o"):
                recorder.tracer.start_span(name, attributes={"llm.model_name": name, **tokens}).end()
            sent = {"llm.model_name": "gpt-4o", "llm.cost.total": 7, **tokens}
            recorder.tracer.start_span("told", attributes=sent).end()
        page.goto(viewer.page(viewer.send(recorder.spans)))
        cost = page.locator("#detail dl div", has_text="Cost").locator("dd")
        page.get_by_role("link", name="mine").click()
        expect(cost).to_have_text("$5.00 ($1.00 input, $4.00 output) by VIEWER_PRICES, from 2026-01-01 on")
        page.get_by_role("link", name="gpt-4o").click()
        expect(cost).to_contain_text("by genai-prices")
        expect(cost).to_contain_text(f"prices of {datetime.now(UTC):%Y-%m-%d}")
        page.get_by_role("link", name="told").click()
        expect(cost).to_have_text("$7.00")
        expect(page.locator("#head")).to_contain_text("$24.50")
