"""Charts of a report as inline SVG, in colours the page's style decides."""

from __future__ import annotations

import io
import re
import threading
from collections.abc import Iterable
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from taskapp.errors import PermanentError
from taskapp.tasks.report_generation import Chart, TableData

ACCENT = "#2f6fde"
INK = "#5b6577"
GRID = "#d9dee7"
WIDTH_INCHES = 8.6
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


def draw(chart: Chart, table: TableData, title: str) -> Markup:
    """Return ``table`` drawn as ``chart``, with ``title`` as its text alternative."""
    # The style is one for the whole process: two reports on two threads take turns.
    with _STYLE_LOCK, mpl.rc_context(STYLE):  # type: ignore[arg-type]  # a mapping of these names
        rows = len(table.rows)
        height = 0.34 * rows + 0.8 if chart.kind == "horizontal_bar" else 3.2
        figure = Figure(figsize=(WIDTH_INCHES, max(2.2, height)), layout="constrained")
        axes = figure.add_subplot()
        _DRAW[chart.kind](axes, table, chart.unit)
        out = io.StringIO()
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _inline(out.getvalue(), title)


def _line(axes: Axes, table: TableData, unit: str) -> None:
    names, values = _columns(table)
    positions = range(len(names))
    axes.plot(positions, values, color=ACCENT, linewidth=2, marker="o", markersize=5)
    axes.fill_between(positions, values, min(0, *values), color=ACCENT, alpha=0.12)
    axes.set_xticks(positions, names)
    _bare(axes, unit, grid="y")


def _bar(axes: Axes, table: TableData, unit: str) -> None:
    names, values = _columns(table)
    axes.bar(range(len(names)), values, color=ACCENT, width=0.72)
    axes.set_xticks(range(len(names)), names)
    _bare(axes, unit, grid="y")


def _horizontal_bar(axes: Axes, table: TableData, unit: str) -> None:
    names, values = _columns(table)
    axes.barh(range(len(names)), values[::-1], color=ACCENT, height=0.7)
    axes.set_yticks(range(len(names)), names[::-1])
    _bare(axes, unit, grid="x")


def _heatmap(axes: Axes, table: TableData, unit: str) -> None:
    if len(table.columns) < 3:
        raise PermanentError("a heatmap needs two groups and one total")
    across = _in_order(row[1] for row in table.rows)
    down = _in_order(row[0] for row in table.rows)
    cells = [[float("nan")] * len(across) for _ in down]
    for row in table.rows:
        cells[down.index(str(row[0]))][across.index(str(row[1]))] = _number(row[2])
    image = axes.imshow(cells, aspect="auto", cmap="YlGnBu")
    axes.set_xticks(range(len(across)), across)
    axes.set_yticks(range(len(down)), down)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    bar = axes.figure.colorbar(image, ax=axes, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label(unit)


_DRAW = {"line": _line, "bar": _bar, "horizontal_bar": _horizontal_bar, "heatmap": _heatmap}


def _in_order(values: Iterable[Any]) -> list[str]:
    """Return each value once as text: numbers ascending, anything else in the order it comes."""
    different = list(dict.fromkeys(values))
    if all(isinstance(value, int | float) for value in different):
        different.sort()
    return [str(value) for value in different]


def _columns(table: TableData) -> tuple[list[str], list[float]]:
    return [str(row[0]) for row in table.rows], [_number(row[1]) for row in table.rows]


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


def _inline(svg: str, title: str) -> Markup:
    """Take the ``svg`` element out of the file, give it a name, let it fill its column."""
    element = svg[svg.index("<svg") :]
    element = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", element, count=1)
    element = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", element, count=1)
    # Two charts on a page must not share the names of their clip paths.
    prefix = re.sub(r"\W+", "-", title.lower())
    element = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{prefix}-", element)
    label = f'<svg role="img" aria-label="{escape(title)}"'
    return Markup(element.replace("<svg", label, 1))  # noqa: S704 - matplotlib escapes the texts inside
