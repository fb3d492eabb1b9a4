"""The chart of ``docs/benchmarks.md``: CPU of worker and client per task, the shortest bar on top."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.frameworks import BY_KEY
from benchmarks.records import Record, Records

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, FLOOR, OTHERS = "#c2410c", "#a8a29e", "#64748b"


def draw(records: Records, path: Path) -> None:
    """Write the chart as SVG; the same figures give the same bytes."""
    import matplotlib as mpl  # takes long, and only who draws needs it
    from matplotlib.figure import Figure

    panels = [
        ("worker, µs of CPU per task", records.newest("drain"), "worker_us"),
        ("one delay(), µs of CPU of the client", records.newest("submit", how="one by one"), "client_us"),
    ]
    with mpl.rc_context({"svg.hashsalt": "taskapp", "svg.fonttype": "none", "font.size": 8}):
        most = max([1, *(len(found) for _title, found, _figure in panels)])
        figure = Figure(figsize=(9, 0.8 + 0.24 * most), layout="constrained")
        for axes, (title, found, name) in zip(figure.subplots(1, 2), panels, strict=True):
            _bars(axes, title, found, name)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _bars(axes: Axes, title: str, records: list[Record], name: str) -> None:
    """Draw one bar per variant, on a logarithmic scale: the costs differ by a factor of a hundred."""
    measured = [(value, record) for record in records if (value := record.median(name)) is not None]
    measured.sort(key=lambda each: -each[0])
    positions = range(len(measured))
    values = [value for value, _record in measured]
    bars = axes.barh(positions, values, color=[_colour(record) for _value, record in measured], height=0.72)
    axes.bar_label(bars, labels=[f"{value:,.0f}" for value in values], padding=3)
    axes.set_yticks(positions, [BY_KEY[record.variant].title.replace("`", "") for _value, record in measured])
    if values:
        axes.set_xscale("log")
        axes.set_xlim(right=2.5 * max(values))
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)


def _colour(record: Record) -> str:
    framework = BY_KEY[record.variant].framework
    return {"taskapp": OURS, "floor": FLOOR}.get(framework, OTHERS)
