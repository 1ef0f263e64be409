"""Text for where Streamlit reads more markup than anybody meant to write."""

import re

# What begins a block stands first in a line, the rest anywhere; within words and addresses an underscore does nothing.
_MARKS = re.compile(
    r"[\\`*~\[\]$<&]|:(?=[A-Za-z])|(?<![^\W_])_|_(?![^\W_])|^ *(?:[#>+-]|\d+[.)](?=\s|$))", re.MULTILINE
)
# Code and formulas, then any other dollar: a formula touches both of its own, and no digit follows it.
_DOLLARS = re.compile(
    r"^ {0,3}(?P<fence>`{3,}|~{3,}).*?(?:^ {0,3}(?P=fence)|\Z)"
    r"|(?<!`)(?P<ticks>`+)(?!`).*?(?<!`)(?P=ticks)(?!`)"
    r"|\\.|\$\$.*?\$\$|\$(?![\s$])(?:[^$\\\n]|\\.|\n(?!\s*\n))*?(?<!\s)\$(?!\d)|(?P<price>\$)",
    re.MULTILINE | re.DOTALL,
)


def plain(text: str) -> str:
    """Return Markdown that is read as this text."""
    return _MARKS.sub(lambda mark: f"{mark[0][:-1]}\\{mark[0][-1]}", text)


def with_prices(markdown: str) -> str:
    """Return a model's Markdown whose amounts of dollars are no formulas."""
    return _DOLLARS.sub(lambda found: "\\$" if found["price"] else found[0], markdown)
