"""Text stays text where Streamlit reads Markdown; told by a browser, which shows it."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.processes import free_port, start
from tests.ui.stack import port
from ui.markdown import escape, from_model, split_blocks, split_thought

TEXTS = [
    "Run `import x` and *this* _now_ with __init__ and snake_case",
    "send one of text/*, image/*, video/*.",
    "costs $5 or $6, and 2 * 3 < 4 & 5 &amp; 6",
    "see [this](http://x.test/a_b) or http://127.0.0.1:80/a_b ![i](x.png) <b>no</b>",
    ":red[no] ~~gone~~ C:\\temp\\*",
    "at 19:30 note:see Error:red and:blue[no]",
    "1. Buy milk",
    "2) Buy milk",
    "# Buy milk",
    "- milk",
    "> milk",
    "3.5 is more than 3",
]
SCRIPT = """
import json, sys
import streamlit as st
from ui.markdown import escape
for number, text in enumerate(json.load(open({texts!r}))):
    st.button(escape(text), key=f"button-{{number}}")
    with st.container(key=f"error-{{number}}"):
        st.error(escape(text))
"""


@pytest.fixture
def shown(tab: Page, tmp_path: Path) -> Iterator[Page]:
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    script = tmp_path / "page.py"
    script.write_text(SCRIPT.format(texts=str(tmp_path / "texts.json")))
    url = f"http://127.0.0.1:{free_port()}"
    argv = [sys.executable, "-m", "streamlit", "run", str(script), "--server.port", port(url)]
    only_here = {"STREAMLIT_SERVER_ADDRESS": "127.0.0.1", "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false"}
    with start(argv, only_here, f"{url}/_stcore/health"):
        tab.goto(url)
        yield tab


def test_every_text_is_shown_as_it_is(shown: Page) -> None:
    """Labels and errors show each sign that was written."""
    for number, text in enumerate(TEXTS):
        for place in ("button", "error"):
            expect(shown.locator(f".st-key-{place}-{number} p")).to_have_text(text)


@pytest.mark.parametrize(
    "text", ["What is 12+34?", "http://127.0.0.1:8080/a_b-c", "3.5 s", "", "read_file: no such file"]
)
def test_plain_words_stay_as_they_are(text: str) -> None:
    """What is no markup needs no backslash."""
    assert escape(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "$x^2$ and $a$, $$\\sum x$$",
        "`$5 or $6` and ``a`$b ` $c``",
        "```sh\necho $A $B\n```",
        "~~~\n$5 $6",
        "\\$5 and \\$6",
        "no dollar",
    ],
)
def test_formulas_and_code_keep_their_dollars(text: str) -> None:
    """Only what is neither is a price."""
    assert from_model(text) == text


@pytest.mark.parametrize("text", ["$5 or $6", "$5-$10", "$HOME and $PATH", "5$ and 6 $", "```\n```\n$5 and `x` $6"])
def test_amounts_are_no_formulas(text: str) -> None:
    """What would be set as mathematics although it is none keeps its signs."""
    assert from_model(text).replace("  \n", "\n") == text.replace("$", "\\$")


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("so \\(a^2\\) is", "so $a^2$ is"),
        ("\\[a\nb\\]", "\n$$\na\nb\n$$\n"),
        ("- \\[a\\]", "- \n  $$\n  a\n  $$\n  "),
        ("`\\(a\\)`", "`\\(a\\)`"),
        ("roses\nviolets\n\nlilies", "roses  \nviolets\n\nlilies"),
        ("3~5 days, or 7~10, ~~gone~~", "3\\~5 days, or 7\\~10, ~~gone~~"),
        ("Returns:List[int] of std::map", "Returns\\:List[int] of std:\\:map"),
        ("https://x.test/Help:Me~you at 19:30", "https://x.test/Help:Me~you at 19:30"),
        ("```\na:b ~ \\(c\\)\nd\n```", "```\na:b ~ \\(c\\)\nd\n```"),
        ("\\(never closed", "\\(never closed"),
    ],
)
def test_a_models_text_means_what_it_says(text: str, markdown: str) -> None:
    """Formulas are formulas, line breaks are line breaks, and nothing else becomes markup by chance."""
    assert from_model(text) == markdown


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("a\n\nb\n\n", ["a\n\n", "b\n\n"]),
        ("```\na\n\nb\n```\n\nc", ["```\na\n\nb\n```\n\n", "c"]),
        ("```\na\n\nb", ["```\na\n\nb"]),
        ("$$\na\n\nb\n$$", ["$$\na\n\nb\n$$"]),
        ("- a\n\n- b\n\n  c\n\nd", ["- a\n\n- b\n\n  c\n\n", "d"]),
        ("", [""]),
    ],
)
def test_blocks_that_are_complete_stay_as_they_are(text: str, blocks: list[str]) -> None:
    """Text is split where a paragraph ends, and never within code, formulas or lists; no character is lost."""
    assert split_blocks(text) == blocks
    assert "".join(split_blocks(text)) == text


@pytest.mark.parametrize(
    ("text", "thought", "answer"),
    [
        ("<think>So\n\nhm.</think>\n\nYes.", "So\n\nhm.", "Yes."),
        ("<think>So", "So", ""),
        ("Yes. <think>", "", "Yes. <think>"),
    ],
)
def test_reasoning_is_told_from_the_answer(text: str, thought: str, answer: str) -> None:
    """What a model thought before it answered is not part of its answer."""
    assert split_thought(text) == (thought, answer)


@pytest.mark.parametrize(
    ("written", "given"),
    [
        ("这是**“强调”**文字", "这是\u200a**“强调”**\u200a文字"),
        ("今天**气温25℃**较高", "今天**气温25℃**\u200a较高"),
        ("これは*「強調」*です", "これは\u200a*「強調」*\u200aです"),
        ("**强调**。后面", "**强调**。后面"),
        ("`**“a”**文`", "`**“a”**文`"),
        ("for **$5** and 2 * 3 * 4", "for **\\$5** and 2 * 3 * 4"),
    ],
)
def test_emphasis_is_recognised_without_spaces(written: str, given: str) -> None:
    """Where a script has no spaces, and only where Markdown needs one, a hair space is put beside the mark."""
    assert from_model(written) == given
