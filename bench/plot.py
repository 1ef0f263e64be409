"""Draw the results: bars on a logarithmic scale, readable on a light and on a dark background."""

from collections.abc import Sequence
from math import log10
from typing import Any

from bench.variants import NAMES

PANELS = (("stream", 40), ("invoke", 200))
WIDTH, LABELS, ROW, BAR = 760, 170, 22, 14
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600 }
.ours { fill: #1a7f37 }
.peer { fill: #8c959f }
.grid { stroke: #d0d7de }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .ours { fill: #3fb950 }
  .peer { fill: #6e7681 }
  .grid { stroke: #30363d }
}
"""


def plot(rows: Sequence[dict[str, Any]]) -> str:
    """Return an SVG of the cost of a turn in two typical cells."""
    panels, top = [], 0
    most = max([10.0, *(row["cpu_ratio"] for row in rows)])
    for mode, history in PANELS:
        shown = [row for row in rows if (row["mode"], row["history"]) == (mode, history) and row["variant"] in NAMES]
        if shown:
            panels.append(_panel(f"{mode}, {history} messages of history", shown, most, top))
            top += (len(shown) + 3) * ROW
    title = "<title>CPU time of a turn, untraced = 1</title>"
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" role="img">'
    return f"{opening}\n{title}\n<style>{STYLE}</style>\n" + "\n".join(panels) + "\n</svg>\n"


def _panel(title: str, rows: Sequence[dict[str, Any]], most: float, top: int) -> str:
    height = (len(rows) + 1) * ROW
    parts = [f'<text class="title" x="0" y="{top + 15}">CPU time of a turn, untraced = 1: {title}</text>']
    for tick in [tick for tick in (1, 2, 5, 10, 20, 50, 100, 200) if tick <= most]:
        x = _x(tick, most)
        parts.append(f'<line class="grid" x1="{x}" x2="{x}" y1="{top + ROW}" y2="{top + height}"/>')
        parts.append(f'<text x="{x}" y="{top + height + 14}" text-anchor="middle">{tick}</text>')
    for number, row in enumerate(sorted(rows, key=lambda row: row["cpu_ratio"])):
        parts.append(_bar(row, most, top + (number + 1) * ROW))
    return "\n".join(parts)


def _bar(row: dict[str, Any], most: float, y: int) -> str:
    end = max(_x(row["cpu_ratio"], most), LABELS + 2)
    name = NAMES[row["variant"]].replace("`", "")
    kind = "ours" if name.startswith("ours") else "peer"
    return (
        f'<text x="{LABELS - 8}" y="{y + 12}" text-anchor="end">{name}</text>'
        f'<rect class="{kind}" x="{LABELS}" y="{y + 1}" width="{end - LABELS}" height="{BAR}" rx="2"/>'
        f'<text x="{end + 6}" y="{y + 12}">{row["cpu_ratio"]:.2f}</text>'
    )


def _x(ratio: float, most: float) -> int:
    width = WIDTH - LABELS - 60
    return round(LABELS + width * log10(max(ratio, 1.0)) / log10(most))
