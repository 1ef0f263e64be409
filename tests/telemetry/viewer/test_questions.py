"""Ten questions to 3,000 traces with faults, answered in a browser from the list of traces on, by clicks."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice

import pytest
from playwright.sync_api import Browser, Page, expect

from bench.viewer_traces import scores, traces
from telemetry.viewer.score import Score
from telemetry.viewer.settings import ViewerSettings
from telemetry.viewer.store import Store
from tests.telemetry.viewer.conftest import Viewer, running

COUNT = 3_000


@pytest.fixture(scope="module")
def week(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    """A viewer with the week's traces."""
    path, made = tmp_path_factory.mktemp("week") / "viewer.db", traces(COUNT, time.time_ns())
    with closing(Store(path, 2**32)) as store:
        while batch := [span for each in islice(made, 100) for span in each]:
            store.add_spans(batch)
            store.add_scores([Score.model_validate(each) for each in scores(batch)])
    with running(ViewerSettings(db=path, max_bytes=2**32)) as viewer:
        yield viewer


def overview(page: Page, period: str) -> None:
    page.get_by_role("link", name="Overview").click()
    page.get_by_role("link", name=period, exact=True).click()


def facet(page: Page, title: str, value: str) -> None:
    page.get_by_role("complementary").get_by_text(title, exact=True).click()
    page.get_by_role("complementary").get_by_role("link", name=value).click()


def which_tool_fails_most(page: Page) -> None:
    overview(page, "7 d")
    expect(page.get_by_role("region", name="Tools").get_by_role("row", name="weather")).to_contain_text(
        re.compile(r"14\.\d %")
    )


def who_waited_longest_in_the_last_day(page: Page) -> None:
    page.get_by_role("link", name="Overview").click()
    page.get_by_role("region", name="Totals").get_by_title("the slowest first").first.click()
    expect(page.locator("tbody tr").first).to_contain_text("grace")
    expect(page.locator("tbody tr").first).to_contain_text("3 min")


def what_did_the_slowest_turn_wait_for(page: Page) -> None:
    who_waited_longest_in_the_last_day(page)
    page.locator("tbody a[data-row]").first.click()
    expect(page.locator("#head div", has_text="Time went to").locator("dd")).to_have_text("query_database 3 min 0 s")


def which_change_made_it_dearer(page: Page) -> None:
    overview(page, "7 d")
    versions = page.get_by_role("region", name="Versions")
    costs = [versions.get_by_role("row", name=name).locator("td").last.inner_text() for name in ("1.3.0", "1.4.0")]
    before, after = (float(cost.removeprefix("$")) for cost in costs)
    assert after > 1.5 * before


def which_model_is_slowest_to_its_first_token(page: Page) -> None:
    overview(page, "7 d")
    rows = page.get_by_role("region", name="Models").locator("tbody tr")
    slow = rows.filter(has_text="gpt-5.6-sol").locator("td[data-label='First token']")
    expect(slow).to_have_text(re.compile(r"1\.9\d s"))


def who_costs_most(page: Page) -> None:
    overview(page, "7 d")
    expect(page.get_by_role("region", name="Users").locator("tbody tr").first).to_contain_text("ivan")


def where_is_the_rate_limit_met(page: Page) -> None:
    facet(page, "Error", "RateLimitError")
    page.get_by_role("complementary").get_by_text("Environment", exact=True).click()
    expect(page.get_by_role("complementary").get_by_role("link", name="staging")).to_be_visible()
    expect(page.get_by_role("complementary").get_by_role("link", name="production")).to_have_count(0)


def what_was_disliked_and_why(page: Page) -> None:
    overview(page, "7 d")
    page.get_by_role("region", name="Scores").locator("td[data-label=Others] a").click()
    expect(page.locator("tbody tr").first).to_contain_text("That is not what the terms say.")


def which_turn_ran_in_circles(page: Page) -> None:
    overview(page, "7 d")
    page.get_by_role("region", name="Totals").get_by_title("the most first").click()
    page.locator("tbody a[data-row]").first.click()
    page.get_by_text("Graph", exact=True).click()
    expect(page.get_by_role("group", name="The nodes of the agent")).to_contain_text("40")


def who_asked_for_a_refund(page: Page) -> None:
    page.get_by_placeholder("Words asked or answered").fill("refund")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("tbody tr")).to_have_count(8)


QUESTIONS: list[tuple[Callable[[Page], None], int]] = [
    (which_tool_fails_most, 2),
    (who_waited_longest_in_the_last_day, 2),
    (what_did_the_slowest_turn_wait_for, 3),
    (which_change_made_it_dearer, 2),
    (which_model_is_slowest_to_its_first_token, 2),
    (who_costs_most, 2),
    (where_is_the_rate_limit_met, 3),
    (what_was_disliked_and_why, 3),
    (which_turn_ran_in_circles, 5),
    (who_asked_for_a_refund, 1),
]
COUNT_CLICKS = "addEventListener('click', () => sessionStorage.clicks = 1 + Number(sessionStorage.clicks || 0), true)"


def test_ten_questions_are_answered_by_few_clicks(week: Viewer, chromium: Browser) -> None:
    """Each answer is on the page after so many clicks; a newcomer needs no address and no manual."""
    clicks = {}
    for ask, _ in QUESTIONS:
        with chromium.new_context(viewport={"width": 1280, "height": 800}) as context:
            page = context.new_page()
            page.add_init_script(COUNT_CLICKS)
            page.goto(week.traces())
            ask(page)
            clicks[ask.__name__] = int(page.evaluate("sessionStorage.clicks"))
    assert clicks == {ask.__name__: count for ask, count in QUESTIONS}
