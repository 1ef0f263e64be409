"""Text for where Streamlit reads Markdown and nobody meant to write any: titles, labels, errors."""

import re

# What begins a block stands first in a line, the rest anywhere; within words and addresses an underscore does nothing.
_MARKS = re.compile(
    r"[\\`*~\[\]$<&]|:(?=[A-Za-z])|(?<![^\W_])_|_(?![^\W_])|^ *(?:[#>+-]|\d+[.)](?=\s|$))", re.MULTILINE
)


def plain(text: str) -> str:
    """Return Markdown that is read as this text."""
    return _MARKS.sub(lambda mark: f"{mark[0][:-1]}\\{mark[0][-1]}", text)
