"""A curve in one line of text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

BARS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int) -> str:
    """At most `width` bars from the lowest to the highest value; means where there are more values.

    NaN and infinity are drawn as `!`: a run that diverged should look like one.
    """
    cells = _shrink(values, width)
    finite = [value for value in cells if math.isfinite(value)]
    if not finite:
        return "!" * len(cells)
    low, span = min(finite), max(finite) - min(finite)
    return "".join(_bar(value, low, span) for value in cells)


def _bar(value: float, low: float, span: float) -> str:
    if not math.isfinite(value):
        return "!"
    if span == 0:
        return BARS[len(BARS) // 2]
    return BARS[round((value - low) / span * (len(BARS) - 1))]


def _shrink(values: Sequence[float], width: int) -> list[float]:
    """`values` as at most `width` means of neighbours."""
    if len(values) <= width:
        return list(values)
    edges = [round(index * len(values) / width) for index in range(width + 1)]
    return [sum(values[start:end]) / (end - start) for start, end in itertools.pairwise(edges)]
