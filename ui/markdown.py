"""Turn text into Markdown that Streamlit shows as its author meant it."""

import re
import unicodedata

HAIR_SPACE = "\N{HAIR SPACE}"
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
# Block markers count at the start of a line, others anywhere; an underscore within a word or an address does nothing.
_MARKUP = re.compile(
    r"[\\`*~\[\]$<&]|:(?=[A-Za-z])|(?<![^\W_])_|_(?![^\W_])|^ *(?:[#>+-]|\d+[.)](?=\s|$))", re.MULTILINE
)
_FENCE = r"^ {0,3}(?P<fence>`{3,}|~{3,}).*?(?:^ {0,3}(?P=fence)[`~]*[ \t]*$|\Z)"
_CODE = r"(?<!`)(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)"
# A formula touches both of its dollar signs, and no digit follows the second; any other dollar sign is an amount.
_FORMULA = r"\$\$.*?\$\$|\$(?![\s$])(?:[^$\\\n]|\\.|\n(?!\s*\n))*?(?<!\s)\$(?!\d)"
_PARTS = re.compile(
    rf"(?P<block>{_FENCE}\n?)|(?P<code>{_CODE})"
    r"|\\\[(?P<display>(?:(?!\n\s*\n).)+?)\\\]|\\\((?P<inline>(?:(?!\n\s*\n).)+?)\\\)"
    rf"|(?P<escape>\\.)|(?P<formula>{_FORMULA})|(?P<url>\bhttps?://[^\s)>\]]+)"
    r"|(?P<strong>(?P<stars>\*{1,2})(?=[^\s*])(?P<emphasised>[^*\n]*[^*\s])(?P=stars)(?!\*))"
    r"|(?P<plain>\$|(?<!~)~(?!~)|:(?=[A-Za-z]))|(?P<break>(?<=[^\s])[ \t]*\n(?=[ \t]*[^\s]))",
    re.MULTILINE | re.DOTALL,
)
_THOUGHT = re.compile(r"\s*<(?P<tag>think|thinking|reasoning)>(?P<thought>.*?)(?:</(?P=tag)>\s*|\Z)", re.DOTALL)
_BLANK_LINE = re.compile(r"\n[ \t]*\n(?=\S)")
_LIST_ITEM = re.compile(r"\s*(?:(?:[-+*]|\d+[.)])\s+)?")
# What may belong to the list, table or quotation before it.
_CONTINUES = re.compile(r"[-+*>|]|\d+[.)]\s")


def escape(text: str) -> str:
    """Return Markdown that is shown as exactly this text."""
    return _MARKUP.sub(lambda match: f"{match[0][:-1]}\\{match[0][-1]}", text)


def from_model(markdown: str) -> str:
    r"""Return a model's Markdown for Streamlit.

    Formulas between `\(…\)` and `\[…\]` are set as such, a line break is one, and what only Streamlit reads as markup
    stays as written: the dollar sign of an amount, a single `~`, and `:word[…]`.
    """
    return _PARTS.sub(_convert, markdown)


def split_thought(markdown: str) -> tuple[str, str]:
    """Return the reasoning that a model wrote between `<think>` tags before its answer, and the answer."""
    if match := _THOUGHT.match(markdown):
        return match["thought"].strip(), markdown[match.end() :]
    return "", markdown


def split_blocks(markdown: str) -> list[str]:
    """Return the blocks of a text that is being written, so that those which are complete stay as they are."""
    blocks, start = [], 0
    code = [match.span() for match in re.finditer(rf"{_FENCE}|\$\$.*?(?:\$\$|\Z)", markdown, re.MULTILINE | re.DOTALL)]
    for blank in _BLANK_LINE.finditer(markdown):
        inside = any(begin <= blank.start() < end for begin, end in code)
        if not inside and not _CONTINUES.match(markdown, blank.end()):
            blocks.append(markdown[start : blank.end()])
            start = blank.end()
    return [*blocks, markdown[start:]]


def _convert(match: re.Match[str]) -> str:
    if match["strong"] is not None:
        return _emphasis(match)
    if match["display"] is not None:
        return _display(match)
    if match["inline"] is not None:
        return f"${match['inline'].strip()}$"
    if match["plain"] is not None:
        return f"\\{match['plain']}"
    if match["break"] is not None:
        return "  \n"
    return match[0]


def _emphasis(match: re.Match[str]) -> str:
    """Return emphasis that is recognised also within a text that is written without spaces.

    Markdown wants a space, or punctuation, outside of a mark that has punctuation inside, which Chinese and Japanese do
    not have there: a hair space is put where it is missing.
    """
    inner, marks = match["emphasised"], match["stars"]
    before, after = match.string[match.start() - 1 : match.start()], match.string[match.end() : match.end() + 1]
    opening = HAIR_SPACE if _CJK.match(before) and _is_punctuation(inner[0]) else ""
    closing = HAIR_SPACE if _CJK.match(after) and _is_punctuation(inner[-1]) else ""
    return f"{opening}{marks}{_PARTS.sub(_convert, inner)}{marks}{closing}"


def _is_punctuation(character: str) -> bool:
    return unicodedata.category(character)[0] in "PS"


def _display(match: re.Match[str]) -> str:
    """Return a formula on lines of its own, indented as the list item that it is part of."""
    line = match.string[match.string.rfind("\n", 0, match.start()) + 1 : match.start()]
    marker = _LIST_ITEM.match(line)
    indent = " " * len(marker[0]) if marker else ""
    lines = ["$$", *match["display"].strip().splitlines(), "$$"]
    return "\n" + "".join(f"{indent}{each.strip()}\n" for each in lines) + indent
