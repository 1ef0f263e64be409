"""Where the texts are that people read."""

import ast
import re
from collections.abc import Iterator
from inspect import isfunction, signature
from pathlib import Path

import pytest
import streamlit as st

from ui import texts

ROOT = Path(__file__).parents[2]
# What looks like text in these is none that a page shows.
OTHERS = {
    "browser.py": "scripts",
    "markdown.py": "patterns",
    "serve.py": "for whoever starts the page",
    "settings.py": "for whoever starts the page",
    "streamlit_patches.py": "for whoever upgrades Streamlit",
    "tracing.py": "the name of a span",
}
SHOWN = {"body", "caption", "help", "label", "page_title", "placeholder", "text", "title"}
MARKUP = re.compile(r"<script>.*</script>|<[^>]*>", re.DOTALL)
# A capitalised word, or a letter beside a blank.
WORDS = re.compile(r"(?:^|\W)[A-Z][a-z]|[A-Za-z] | [A-Za-z]")


def sources() -> list[Path]:
    return [path for path in sorted((ROOT / "ui").rglob("*.py")) if path.name not in {"texts.py", *OTHERS}]


def literal(node: ast.AST) -> str:
    """What a string says, apart from markup, with `{}` for each value; nothing for anything else."""
    match node:
        case ast.Constant(value=str(value)):
            return MARKUP.sub("", value)
        case ast.JoinedStr(values=values):
            whole = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in values)
            return MARKUP.sub("", whole)
        case _:
            return ""


def unseen(node: ast.AST) -> list[ast.AST | None]:
    """The parts of a node that no page shows: docstrings, annotations and logs, and the parts of a longer string."""
    match node:
        case ast.Expr(value=ast.Constant() as docstring):
            return [docstring]
        case ast.arg(annotation=annotation) | ast.AnnAssign(annotation=annotation):
            return [annotation]
        case ast.FunctionDef(returns=returns):
            return [returns]
        case ast.Call(func=ast.Attribute(value=ast.Name(id="logger")), args=args):
            return [*args]
        case ast.JoinedStr(values=values):
            return [value for value in values if isinstance(value, ast.Constant)]
        case _:
            return []


def shown_by_streamlit(call: ast.Call) -> Iterator[ast.AST]:
    """The arguments that a call shows, if it is one of Streamlit's."""
    function = getattr(st, call.func.attr, None) if isinstance(call.func, ast.Attribute) else None
    if function is None or not callable(function):
        return
    yield from (value for name, value in zip(signature(function).parameters, call.args, strict=False) if name in SHOWN)
    yield from (keyword.value for keyword in call.keywords if keyword.arg in SHOWN)


def texts_in(source: str) -> list[str]:
    """The strings of a file that look like text, or that Streamlit would show."""
    tree = ast.parse(source)
    hidden = {part for node in ast.walk(tree) for top in unseen(node) if top for part in ast.walk(top)}
    nodes = [node for node in ast.walk(tree) if node not in hidden]
    shown = [argument for node in nodes if isinstance(node, ast.Call) for argument in shown_by_streamlit(node)]
    found = {text for node in nodes if WORDS.search(text := literal(node))}
    found |= {text for node in shown if node not in hidden and re.search("[A-Za-z]", text := literal(node))}
    return sorted(found)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_text_is_in_one_file(path: Path) -> None:
    """Whoever translates the page reads `ui/texts.py` only."""
    assert texts_in(path.read_text()) == []


def test_components_get_their_texts_from_python() -> None:
    """The scripts and the markup of the components name nothing themselves."""
    files = [path for kind in ("js", "html") for path in (ROOT / "ui" / "components").rglob(f"*.{kind}")]
    assert len(files) >= 4
    quoted = {path.name: re.findall(r"[\"'`>]\s*[A-Z][a-z].*", path.read_text()) for path in files}
    assert {name: found for name, found in quoted.items() if found} == {}


def test_every_text_is_used() -> None:
    """Nobody translates what no page shows."""
    names = {name for name, value in vars(texts).items() if name.isupper() or isfunction(value)}
    used = {name for path in sources() for name in re.findall(r"\btexts\.(\w+)", path.read_text())}
    assert len(names) > 100
    assert names - used == set()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ('st.button("New chat")', "New chat"),
        ('st.button("ok", key="ok")', "ok"),
        ('st.text_input(texts.TITLE, placeholder="title")', "title"),
        ('box.caption(f"{name}: done")', "{}: done"),
        ('label = "Thinking …" if busy else ""', "Thinking …"),
        ('facts.append(f"{number} tokens")', "{} tokens"),
        ('st.html(f"<p class=note>nothing {name}</p>")', "nothing {}"),
        ('raise Failed("The page failed; see its log.")', "The page failed; see its log."),
    ],
)
def test_a_text_is_seen(source: str, text: str) -> None:
    """As an argument or not, in one word or several, with values and in markup."""
    assert texts_in(source) == [text]


@pytest.mark.parametrize(
    "source",
    [
        'def draw(chat: "Chat") -> "Chat":\n    """Draw the chat."""',
        'logger.info("run %s was lost", run)',
        'st.button(texts.NEW_CHAT, key="new", icon=":material/edit:", type="tertiary")',
        'st.markdown(f"**{title}** · {description}")',
        'st.html(f\'<li class="{state}" style="width:{width}%">{name}</li>\')',
        'st.caption(escape(image["name"]))',
    ],
)
def test_what_no_page_shows_is_no_text(source: str) -> None:
    """Docstrings, types, logs, keys, icons and markup stay where they are."""
    assert texts_in(source) == []
