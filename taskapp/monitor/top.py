"""The screen of ``taskapp top``: current state of queues, nodes and task types."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from taskapp.engine.snapshot import NodeSnapshot, Snapshot
from taskapp.monitor.rates import Look, QueueRates, TypeRates, queue_rates, type_rates
from taskapp.sanitize import sanitize

NONE = "·"
UNBOUNDED = 10_000
"""More columns than any line has, so that output to a pipe is not cut."""
TYPES_MOST = 20
NODES_MOST = 40
MINUTE_SECONDS, HOUR_SECONDS, DAY_SECONDS = 60, 3_600, 86_400


def screen(before: Look | None, now: Look, types_most: int = TYPES_MOST, argument: str = "taskapp") -> RenderableType:
    """Render ``now``, with rates since ``before``; without it, no rates."""
    queues = queue_rates(before, now) if before is not None else {}
    types = type_rates(before, now) if before is not None else []
    return Group(
        _heading(now.snapshot, queues),
        _queues(now.snapshot, queues),
        _nodes(now.snapshot, argument),
        _types(types[:types_most], is_known=before is not None),
    )


def age(seconds: float | None) -> str:
    """Format a duration with about two digits and a unit: ``0.4 s``, ``12 s``, ``3 min``, ``5 h``, ``2 d``."""
    if seconds is None:
        return NONE
    for limit, unit, name in (
        (10, 0.0, "s"), (MINUTE_SECONDS * 2, 1, "s"), (HOUR_SECONDS * 2, MINUTE_SECONDS, "min"),
        (DAY_SECONDS * 2, HOUR_SECONDS, "h"), (float("inf"), DAY_SECONDS, "d"),
    ):  # fmt: skip
        if seconds < limit:
            return f"{seconds / unit:,.0f} {name}" if unit else f"{seconds:.1f} {name}"
    return NONE


def _heading(snapshot: Snapshot, queues: dict[str, QueueRates]) -> Text:
    at = datetime.fromtimestamp(snapshot.at, UTC)
    waiting = sum(queue.depth for queue in snapshot.queues)
    held = sum(node.held for node in snapshot.nodes)
    ended = sum(rates.completed + rates.failed for rates in queues.values())
    nodes = sum(node.state == "running" for node in snapshot.nodes)
    return Text(
        f"{at:%H:%M:%S} UTC   {nodes} node{'s' * (nodes != 1)} running   {waiting:,} waiting   {held:,} held   "
        f"{ended:,.1f} done/s",
        style="bold",
    )


class _Fitting:
    """A table with text in the first column and numbers in the others; drops trailing columns that do not fit."""

    def __init__(self, *columns: str) -> None:
        self._columns, self._rows = columns, list[tuple[RenderableType, ...]]()

    def add_row(self, *cells: RenderableType) -> None:
        """Add a row."""
        self._rows.append(cells)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        table = self._table(len(self._columns))
        for count in range(len(self._columns) - 1, 0, -1):
            if Measurement.get(console, options.update(max_width=UNBOUNDED), table).maximum <= options.max_width:
                break
            table = self._table(count)
        yield table

    def _table(self, count: int) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim", expand=False)
        table.add_column(self._columns[0], justify="left", no_wrap=True, overflow="ellipsis", min_width=12)
        for column in self._columns[1:count]:
            table.add_column(column, justify="right", no_wrap=True)
        for cells in self._rows:
            table.add_row(*cells[:count])
        return table


def _queues(snapshot: Snapshot, rates: dict[str, QueueRates]) -> _Fitting:
    table = _Fitting(
        "\nQUEUE",
        "\nready",
        "\noldest",
        "\ndelayed",
        "\nblocked",
        "\nparked",
        "\ndead",
        "\nnodes",
        "\ndone/s",
        "\nfailed/s",
    )
    takers = snapshot.takers()
    for queue in snapshot.queues:
        rate = rates.get(queue.name)
        table.add_row(
            _name(queue.name), _number(queue.depth), age(queue.oldest_seconds), _number(queue.delayed),
            _number(queue.blocked), _number(queue.parked_depth, "yellow"),
            _number(queue.dead_depth, "red"),
            Text(str(takers[queue.name]), style="red" if queue.depth and not takers[queue.name] else ""),
            _rate(rate.completed if rate else 0.0), _rate(rate.failed if rate else 0.0, "red"),
        )  # fmt: skip
    return table


def _nodes(snapshot: Snapshot, argument: str) -> _Fitting:
    nodes = snapshot.nodes
    table = _Fitting("\nNODE", "\nstate", "\nslots used", "\nheld", "\nload", "\nup", "\nqueues")
    order = {"lost": 0, "draining": 1, "running": 2}
    for node in sorted(nodes, key=lambda each: (order.get(each.state, 3), each.name))[:NODES_MOST]:
        style = {"lost": "red", "draining": "yellow"}.get(node.state, "")
        table.add_row(
            _name(node.name or node.epoch[:8]), _name(node.state, style), _slots(node), _number(node.held),
            NONE if node.load is None else f"{node.load:.2f}",
            age(snapshot.at - node.started_at if node.started_at else None),
            _name(",".join(node.queues)),
        )  # fmt: skip
    if len(nodes) > NODES_MOST:
        table.add_row(Text(f"and {len(nodes) - NODES_MOST} more", style="dim"))
    elif not nodes:
        table.add_row(Text(f"no nodes; start one with: celery -A {argument} worker", style="yellow"))
    return table


def _slots(node: NodeSnapshot) -> str:
    """Return used and total slots, and the kinds of the used ones: ``3/8 (process 3)``."""
    if not node.slots:
        return NONE
    kinds = ", ".join(f"{sanitize(kind)} {number}" for kind, number in node.used.items() if number)
    return f"{sum(node.used.values()):,}/{sum(node.slots.values()):,}" + (f" ({kinds})" if kinds else "")


def _types(types: list[TypeRates], *, is_known: bool) -> _Fitting:
    table = _Fitting("\nTASK TYPE", "\ndone/s", "\nfailed/s", "\nretried/s", "\nfailing", "\nmean", "\n95 % within")
    for each in types:
        slow = "> 1 h" if each.slow_seconds == float("inf") else _seconds(each.slow_seconds)
        failing = Text(f"{each.failing_share:.0%}", style="red") if each.failing_share else Text(NONE, style="dim")
        table.add_row(
            _name(each.task), _rate(each.completed), _rate(each.failed, "red"), _rate(each.retried, "yellow"),
            failing, _seconds(each.mean_seconds), slow,
        )  # fmt: skip
    if not types:
        text = "no tasks ended since the last refresh" if is_known else "rates appear with the second refresh"
        table.add_row(Text(text, style="dim"))
    return table


def _name(name: str, style: str = "") -> Text:
    return Text(sanitize(name), style=style)


def _number(number: int, style: str = "") -> Text:
    return Text(f"{number:,}", style=style) if number else Text(NONE, style="dim")


def _rate(rate: float, style: str = "") -> Text:
    return Text(f"{rate:,.1f}", style=style) if rate else Text(NONE, style="dim")


def _seconds(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    return f"{seconds * 1_000:,.1f} ms" if seconds < 1 else f"{seconds:,.1f} s"
