"""Charts of a report as inline SVG, in colors that the page's style sets."""

from __future__ import annotations

import io
import math
import re
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from taskapp.errors import PermanentError
from taskapp.tasks.report_generation.model import Chart, Table

ACCENT = "#2f6fde"
INK = "#5b6577"
GRID = "#d9dee7"
PAGE_COLORS = {ACCENT: "--accent", INK: "--soft", GRID: "--line"}
"""Replaced by the page's variables, which differ between light and dark mode."""
SERIES = (ACCENT, "#e08a1e", "#2a9d73", "#c94f7c", "#7b61d1", "#4aa3c7", "#a8862b", "#7d8799")
WIDTH_INCHES = 8.6
FEWEST_BARS = 6
MOST_MARKERS = 40
MOST_VALUES = {"line": 100_000, "bar": 2_000, "stacked_bar": 2_000, "horizontal_bar": 1_000, "heatmap": 100_000}
"""Maximum of names times series, by kind of chart. Each bar is a separate element that takes 10 KB of memory."""
MOST_NAMES_DOWN = 60
"""Number of names that fit next to a heatmap."""
LINE_CHARACTERS = 92
"""Number of characters that fit below a chart."""
_STYLE_LOCK = threading.Lock()
STYLE = {
    "svg.hashsalt": "taskapp",  # the same chart has the same element ids, so the same bytes
    "svg.fonttype": "none",  # text stays text: selectable, searchable, in the page's font
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,  # a dollar in a label is a dollar
}


def draw(chart: Chart, table: Table, title: str, number: int) -> Markup:
    """Draw ``table`` as ``chart``, with a text alternative; ``number`` identifies it on the page.

    Raises:
        PermanentError: The table does not fit this kind of chart.
    """
    grid = _Grid(table, chart.kind)
    # The style is global to the process, so reports on different threads take turns.
    with _STYLE_LOCK, mpl.rc_context(STYLE):  # type: ignore[arg-type]  # a mapping of these names
        height = 0.34 * len(grid.names) + 0.8 if chart.kind == "horizontal_bar" else 3.2
        figure = Figure(figsize=(WIDTH_INCHES, max(2.2, height)), layout="constrained")
        axes = figure.add_subplot()
        _DRAW[chart.kind](axes, grid, chart.unit)
        if len(grid.series) > 1 and chart.kind != "heatmap":
            figure.legend(loc="outside upper left", ncols=len(grid.series), frameon=False, handlelength=1.2)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(out.getvalue(), f"{title}: {_described(chart, table)}", number)


class _Grid:
    """A table arranged for charts: one row of values per series, one column per name; gaps are NaN."""

    def __init__(self, table: Table, kind: str) -> None:
        needed = (2,) if kind == "heatmap" else (1,) if kind == "horizontal_bar" else (1, 2)
        if table.names not in needed or len(table.columns) <= table.names:
            raise PermanentError(
                f"a {kind} chart needs {' or '.join(map(str, needed))} columns of names and one of numbers, "
                f"not {table.columns}"
            )
        by_series = table.names == 2
        self.names = _in_order(row[0] for row in table.rows)
        self.series = _in_order(row[1] for row in table.rows) if by_series else [table.columns[1]]
        if kind != "heatmap" and len(self.series) > len(SERIES):
            raise PermanentError(f"a {kind} chart shows at most {len(SERIES)} series, not {len(self.series)}")
        _check_size(kind, len(self.names), len(self.series))
        self.values = [[math.nan] * len(self.names) for _ in self.series]
        columns = {name: index for index, name in enumerate(self.names)}
        lines = {name: index for index, name in enumerate(self.series)}
        for row in table.rows:
            line = lines[name_of(row[1])] if by_series else 0
            self.values[line][columns[name_of(row[0])]] = _number(row[table.names])


def _check_size(kind: str, names: int, series: int) -> None:
    """Refuse charts that are too large: with two columns of names, each pair is a value.

    Raises:
        PermanentError: There are more values than ``MOST_VALUES`` allows for this kind.
    """
    if names * series > MOST_VALUES[kind]:
        raise PermanentError(
            f"a {kind} chart shows at most {MOST_VALUES[kind]:,} values, not {names:,} x {series:,}; "
            "group more coarsely, filter, or give a limit"
        )


def _line(axes: Axes, grid: _Grid, unit: str) -> None:
    positions = range(len(grid.names))
    marker = "o" if len(positions) <= MOST_MARKERS else None
    for color, name, values in zip(SERIES, grid.series, grid.values, strict=False):
        axes.plot(positions, values, color=color, linewidth=2, marker=marker, markersize=5, label=name)
    if len(grid.series) == 1:
        axes.fill_between(positions, grid.values[0], min(0, *grid.values[0]), color=ACCENT, alpha=0.12)
    _name_across(axes, grid.names)
    _bare(axes, unit, grid="y")


def _bar(axes: Axes, grid: _Grid, unit: str) -> None:
    width = 0.76 / len(grid.series)
    for index, (color, name, values) in enumerate(zip(SERIES, grid.series, grid.values, strict=False)):
        shift = (index - (len(grid.series) - 1) / 2) * width
        axes.bar([x + shift for x in range(len(grid.names))], values, color=color, width=width, label=name)
    _name_bars(axes, grid.names)
    _bare(axes, unit, grid="y")


def _stacked_bar(axes: Axes, grid: _Grid, unit: str) -> None:
    bottom = [0.0] * len(grid.names)
    for color, name, values in zip(SERIES, grid.series, grid.values, strict=False):
        heights = [0.0 if math.isnan(value) else value for value in values]
        axes.bar(range(len(grid.names)), heights, bottom=bottom, color=color, width=0.72, label=name)
        bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
    _name_bars(axes, grid.names)
    _bare(axes, unit, grid="y")


def _horizontal_bar(axes: Axes, grid: _Grid, unit: str) -> None:
    axes.barh(range(len(grid.names)), grid.values[0][::-1], color=ACCENT, height=0.7)
    axes.set_yticks(range(len(grid.names)), [_short(name, 40) for name in grid.names[::-1]])
    axes.margins(y=0.01)
    _bare(axes, unit, grid="x")


def _heatmap(axes: Axes, grid: _Grid, unit: str) -> None:
    down, across = grid.names, grid.series
    cells = [[grid.values[x][y] for x in range(len(across))] for y in range(len(down))]
    image = axes.imshow(cells, aspect="auto", cmap="YlGnBu")
    _name_across(axes, across)
    step = math.ceil(len(down) / MOST_NAMES_DOWN)
    axes.set_yticks(range(0, len(down), step), [_short(name, 24) for name in down[::step]])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    bar.set_label(unit)


_DRAW = {
    "line": _line, "bar": _bar, "stacked_bar": _stacked_bar, "horizontal_bar": _horizontal_bar, "heatmap": _heatmap,
}  # fmt: skip


def _name_bars(axes: Axes, names: Sequence[str]) -> None:
    # Keep a few bars from filling the page, and keep the place of a missing last bar.
    spare = max(0, FEWEST_BARS - len(names)) / 2
    axes.set_xlim(-0.6 - spare, len(names) - 0.4 + spare)
    _name_across(axes, names)


def _name_across(axes: Axes, names: Sequence[str]) -> None:
    """Label the chart with as many of ``names`` as fit below it."""
    shown = [_short(name, 16) for name in names]
    room = max(1, LINE_CHARACTERS // (max(map(len, shown)) + 2))
    step = math.ceil(len(shown) / room)
    axes.set_xticks(range(0, len(shown), step), shown[::step])


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _described(chart: Chart, table: Table) -> str:
    """Describe the chart in words: its kind, and its smallest and largest values."""
    known = [(_number(row[table.names]), row) for row in table.rows if row[table.names] is not None]
    kind = f"{chart.kind.replace('_', ' ')} chart of {table.columns[table.names]}"
    if not known:
        return f"{kind}, no values"
    ends = (min(known, key=lambda pair: pair[0]), max(known, key=lambda pair: pair[0]))
    words = [f"{value:,.6g} ({', '.join(map(name_of, row[: table.names]))})" for value, row in ends]
    return f"{kind}, {len(known)} values from {words[0]} to {words[1]} {chart.unit}".rstrip()


def name_of(value: Any) -> str:
    """Return ``value`` as the name of a row or series; a dash if it is missing."""
    return "\N{EN DASH}" if value is None else str(value)


def _in_order(values: Iterable[Any]) -> list[str]:
    """Return each distinct value as text: numbers ascending, anything else in order of appearance."""
    different = list(dict.fromkeys(values))
    if all(isinstance(value, int | float) for value in different):
        different.sort()
    return [name_of(value) for value in different]


def _number(value: Any) -> float:
    if value is None:
        return float("nan")
    try:
        return float(value)
    except ValueError as error:
        raise PermanentError(f"a chart cannot draw {value!r}; it needs numbers") from error


def _bare(axes: Axes, unit: str, grid: str) -> None:
    axes.spines[["top", "right", "left" if grid == "y" else "bottom"]].set_visible(False)
    axes.grid(axis=grid, color=GRID, linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    measured = axes.yaxis if grid == "y" else axes.xaxis
    measured.set_major_locator(MaxNLocator(nbins=6))
    measured.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    (axes.set_ylabel if grid == "y" else axes.set_xlabel)(unit)


def _inline(svg: str, description: str, number: int) -> Markup:
    """Extract the ``svg`` element, add the description, and let it fill its column."""
    element = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    element = re.sub(r"<[^>]*>", lambda tag: _adapted(tag[0], number), element)
    label = f'<svg role="img" aria-label="{escape(description)}"'
    return Markup(element.replace("<svg", label, 1))  # noqa: S704 - matplotlib escapes the texts inside


def _adapted(tag: str, number: int) -> str:
    """Adapt a tag to a page with other charts: unique ids, the page's colors, no fixed size."""
    if tag.startswith("<svg"):
        tag = re.sub(r' (width|height)="[^"]*"', "", tag)
    tag = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>chart{number}-", tag)
    for color, variable in PAGE_COLORS.items():
        tag = tag.replace(color, f"var({variable})")
    return tag
