"""Tables as lines of text: ids and names stay whole, and output to a pipe is never cut.

On a terminal, each row is one line. If it is too narrow, columns that are not ``kept`` first shrink and are then
dropped, ``expendable`` ones before others. A kept cell is never cut or wrapped.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import NamedTuple
from unicodedata import combining, east_asian_width

from taskapp.sanitize import sanitize

MEASURED_ROWS = 500
"""Number of first rows that set the column widths, so that printing starts before all rows are read."""
WIDEST_PADDING = 60
"""Maximum padding of a column if the line width is unlimited."""
NARROWEST = 6
"""Minimum width of a column; rather than shrink further, it is dropped."""
GAP = "  "
CUT = "…"


def columns_of(text: str) -> int:
    """Return the number of terminal columns that the sanitized ``text`` takes."""
    if text.isascii():
        return len(text)
    return sum(0 if combining(each) else 1 + (east_asian_width(each) in "WF") for each in text)


def _first_columns(text: str, most: int) -> str:
    """Return the start of ``text`` in exactly ``most`` columns, padded if only half a wide character would fit."""
    end = next(end for end in range(min(most, len(text)), -1, -1) if columns_of(text[:end]) <= most)
    return text[:end] + " " * (most - columns_of(text[:end]))


class Layout(NamedTuple):
    """The columns to show, as pairs of number and width, and the columns to drop."""

    shown: list[tuple[int, int]]
    dropped: list[int]


def lay_out(widths: Sequence[int], total: int, fixed: Collection[int], order: Sequence[int]) -> Layout:
    """Fit columns into a line.

    Args:
        widths: Preferred widths of the columns.
        total: Width of the line.
        fixed: Numbers of the columns that keep their width.
        order: Numbers of the other columns, in the order to drop them.

    Returns:
        The layout. It is wider than ``total`` only if the fixed columns are.
    """
    fitted, left = list(widths), [number for number in range(len(widths)) if number not in fixed]
    order = list(order)
    while True:
        shown = [number for number in range(len(widths)) if number in fixed or number in left]
        excess = sum(fitted[number] for number in shown) + len(GAP) * (len(shown) - 1) - total
        if excess <= 0 or not left:
            return Layout([(number, fitted[number]) for number in shown], sorted({*range(len(widths))} - {*shown}))
        widest = max(left, key=lambda number: fitted[number])
        if fitted[widest] > NARROWEST:
            # Shrink at most to the next widest, so that wide columns share the loss.
            others = [fitted[number] for number in left if fitted[number] < fitted[widest]]
            fitted[widest] -= min(excess, fitted[widest] - max([*others, NARROWEST]) or 1)
        else:
            left.remove(order.pop(0))
            for number in left:  # there is room again
                fitted[number] = widths[number]


class TextTable:
    """Headings and rows, as lines.

    Args:
        headings: Column headings.
        kept: Headings of columns that are never cut, wrapped or dropped: ids and names that commands take.
        expendable: Headings of the columns to drop first, in this order.
        width: Width of the terminal; ``None``: unlimited.
    """

    def __init__(
        self, headings: Sequence[str], kept: Collection[str], expendable: Sequence[str] = (), width: int | None = None
    ) -> None:
        self.headings, self.width = list(headings), width
        self._fixed = [number for number, heading in enumerate(headings) if heading in kept]
        others = [n for n, heading in reversed([*enumerate(headings)]) if heading not in {*kept, *expendable}]
        self._order = [*(self.headings.index(heading) for heading in expendable), *others]
        self.dropped: list[str] = []
        """Headings of the dropped columns; set by ``lines``."""

    def lines(self, rows: Iterable[Sequence[object]]) -> Iterator[str]:
        """Yield the headings and one line per row as the rows arrive, each cell sanitized; nothing without rows."""
        cells = ([sanitize(cell) for cell in row] for row in rows)
        first = list(islice(cells, MEASURED_ROWS))
        if not first:
            return
        widths = [max(map(columns_of, column)) for column in zip(self.headings, *first, strict=True)]
        if self.width is None:
            layout = Layout([(number, min(width, WIDEST_PADDING)) for number, width in enumerate(widths)], [])
        else:
            layout = lay_out(widths, self.width, self._fixed, self._order)
        self.dropped = [self.headings[number] for number in layout.dropped]
        for row in chain([self.headings], first, cells):
            yield self._line(row, layout)

    def _line(self, row: Sequence[str], layout: Layout) -> str:
        return GAP.join(self._cell(row[number], number, width) for number, width in layout.shown).rstrip()

    def _cell(self, text: str, number: int, width: int) -> str:
        if columns_of(text) <= width:
            return text + " " * (width - columns_of(text))
        if self.width is None or number in self._fixed:
            return text
        return _first_columns(text, width - 1) + CUT
