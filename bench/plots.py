"""Bar charts as SVG, written by hand: for the documents, on light and on dark pages."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from bench.figures import Figure, number
from bench.servers import FLOOR, GAPLESS

_WIDTH, _LABELS, _VALUES = 760, 150, 170
_BAR, _STEP, _TITLE, _MARGIN = 14, 22, 34, 14
_CLIPPED_AT = 4.0
"""Bars of more than so many times the middle one are cut, and say so: the others could not be told apart."""

_STYLE = """
  .page { fill: #ffffff; } .own { fill: #0b6bcb; } .peer { fill: #8a94a3; } .floor { fill: #c9d0d9; }
  .text { fill: #1d2530; } .quiet { fill: #5a6472; } .line { stroke: #1d2530; } .cut { fill: #ffffff; }
  text { font: 13px system-ui, sans-serif; } .title { font-weight: 600; }
  @media (prefers-color-scheme: dark) {
    .page { fill: #0d1117; } .own { fill: #4c9df3; } .peer { fill: #7d8794; } .floor { fill: #3d4653; }
    .text { fill: #e6edf3; } .quiet { fill: #9aa4b2; } .line { stroke: #e6edf3; } .cut { fill: #0d1117; }
  }
"""


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart: a bar for each server, with its smallest and largest value.

    Attributes:
        title: what is shown, with the unit, and which way is better.
        figures: one a server, in the order of the bars.
    """

    title: str
    figures: Sequence[Figure]


def svg(panels: Sequence[Panel], *, described: str) -> str:
    """Panels below each other; `described` is the alternative text."""
    parts: list[str] = []
    top = _MARGIN
    for panel in panels:
        parts.append(_panel(panel, top))
        top += _TITLE + _STEP * len(panel.figures) + _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" width="{_WIDTH}" height="{top}" '
        f'role="img" aria-label="{escape(described)}">\n<style>{_STYLE}</style>\n'
        f'<rect class="page" width="{_WIDTH}" height="{top}"/>\n{"".join(parts)}</svg>\n'
    )


def _panel(panel: Panel, top: int) -> str:
    medians = [figure.median for figure in panel.figures]
    # What is cut is judged by the medians of the servers; the floor is no server to compare with.
    served = [figure.median for figure in panel.figures if figure.server != FLOOR] or medians
    own = max((figure.median for figure in panel.figures if figure.server == GAPLESS), default=0.0)
    most = min(max(medians), max(own, _CLIPPED_AT * statistics.median_low(served)))
    wide = _WIDTH - _LABELS - _VALUES
    parts = [f'<text class="text title" x="{_MARGIN}" y="{top + 16}">{escape(panel.title)}</text>\n']
    for place, figure in enumerate(panel.figures):
        y = top + _TITLE + place * _STEP
        parts.append(_bar(figure, y, scale=wide / most, wide=wide))
    return "".join(parts)


def _bar(figure: Figure, y: int, *, scale: float, wide: float) -> str:
    kind = {GAPLESS: "own", FLOOR: "floor"}.get(figure.server, "peer")
    length = min(figure.median * scale, wide)
    cut = figure.median * scale > wide + 0.5
    middle, baseline = y + _BAR / 2, y + _BAR - 3
    parts = [
        f'<text class="text" x="{_LABELS - 8}" y="{baseline}" text-anchor="end">{escape(figure.server)}</text>\n',
        f'<rect class="{kind}" x="{_LABELS}" y="{y}" width="{max(length, 1):.1f}" height="{_BAR}" rx="2"/>\n',
    ]
    low, high = min(figure.values) * scale, max(figure.values) * scale
    end = length
    if cut:
        at = _LABELS + wide - 26
        parts.append(f'<path class="cut" d="M{at} {y - 2}l6 0l-5 {_BAR + 4}l-6 0z"/>\n')
    elif high - low >= 1:
        end = max(length, min(high, wide))
        tick = f"M{_LABELS + high:.1f} {middle - 3}v6" if high <= wide else ""  # else it goes on
        parts.append(
            f'<path class="line" fill="none" d="M{_LABELS + low:.1f} {middle}H{_LABELS + min(high, wide):.1f}'
            f'M{_LABELS + low:.1f} {middle - 3}v6{tick}"/>\n'
        )
    value = f"{number(figure.median)} {figure.unit}"
    parts.append(f'<text class="quiet" x="{_LABELS + end + 8:.1f}" y="{baseline}">{escape(value)}</text>\n')
    return "".join(parts)
