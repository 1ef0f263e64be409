"""How a tool call and the figures of an answer are drawn."""

import pytest
from streamlit.testing.v1 import AppTest

from ui.components.answer import format_cost


def script() -> None:
    from ui.components.answer import draw_tool
    from ui.exchange import ToolUse

    draw_tool(ToolUse("look_up ![x](http://x.test)", {}, "1"), working=True)
    draw_tool(ToolUse("look_up", {}, "2"), working=False)
    draw_tool(ToolUse("look_up", {}, "3", "nothing", failed=True), working=True)


def test_a_tool_that_works_is_not_ticked_off() -> None:
    """It turns until its answer is there; a name that a model made up is shown as it is."""
    shown = AppTest.from_function(script).run()
    assert not shown.exception
    assert [each.state for each in shown.status] == ["running", "complete", "error"]
    assert shown.status[0].label == "Using **look_up !\\[x\\](http://x.test)** …"


@pytest.mark.parametrize(
    ("cost", "words"),
    [(0, "0.00"), (0.00002, "0.000020"), (0.00028, "0.00028"), (0.0123, "0.012"), (0.5, "0.50"), (1234.5, "1234.50")],
)
def test_a_cost_is_a_plain_number(cost: float, words: str) -> None:
    """Neither a small nor a large one has an exponent."""
    assert format_cost(cost) == words
