"""How a tool's use is told."""

from streamlit.testing.v1 import AppTest


def script() -> None:
    from ui.answer import draw_tool
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
