"""The tab for queues: waiting messages by priority with their ages; delayed, blocked, parked and dead ones; limits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from taskapp.app.application import Celery
from taskapp.app.resources import Engine
from taskapp.engine.circuits import OF_CIRCUITS, Circuits
from taskapp.engine.limit_numbers import LANES_MOST, BlockedKey, LimitsAdmin
from taskapp.engine.queue_limits import QueueLimits
from taskapp.engine.search import Gate
from taskapp.engine.snapshot import QueueSnapshot, read_snapshot
from taskapp.monitor.flower.page.tab import PageQuery, Tab
from taskapp.monitor.flower.page.view import Block, Card, Cards, Column, TableBlock, View
from taskapp.monitor.limit_rows import LimitRow, limit_rows, numbers_text
from taskapp.queues import PRIORITIES

HIGHEST_FIRST = sorted(PRIORITIES, reverse=True)
COLUMNS = (
    Column("name", "Queue", "code"), Column("depth", "Waiting", "count"), Column("oldest_seconds", "Oldest", "seconds"),
    *(Column(f"priority_{priority}", f"P{priority}", "count") for priority in HIGHEST_FIRST),
    Column("delayed", "Delayed", "count"), Column("next_due_at", "Next due", "time"),
    Column("blocked", "Blocked", "count"), Column("parked", "Parked", "count"), Column("dead", "Dead", "count"),
    Column("limit", "Limit", "count"),
)  # fmt: skip
KEYS_MOST = 20
"""Maximum number of keys to list for which tasks wait."""
BLOCKED_COLUMNS = (
    Column("limit", "Limit", "code"), Column("key", "Key", "code"), Column("number", "Blocked", "count"),
    Column("why", "Why"), Column("opens_at", "Until", "time"),
)  # fmt: skip
LIMITS_MOST = 200
LIMIT_COLUMNS = (
    Column("name", "Limit", "code"), Column("kind", "Kind"), Column("code", "Code"), Column("set", "Set"),
    Column("blocked", "Blocked", "count"), Column("origin", "From"),
)  # fmt: skip
CIRCUIT_COLUMNS = (
    Column("task", "Task type", "code"), Column("state", "State", "state"), Column("kind", "Errors", "code"),
    Column("times", "Opened", "count"), Column("since", "Since", "time"), Column("left_seconds", "Probe in", "seconds"),
)  # fmt: skip
PARKED_COLUMNS = (
    Column("queue", "Queue", "code"), Column("task", "Task type", "code"), Column("number", "Parked", "count"),
    Column("oldest_seconds", "Oldest", "seconds"),
)  # fmt: skip


class QueuesTab(Tab):
    """Queues."""

    name: ClassVar[str] = "queues"
    title: ClassVar[str] = "Queues"
    about: ClassVar[str] = "Waiting tasks by priority (9 runs first), and how long they have waited."
    order: ClassVar[int] = 20
    without_engine: ClassVar[str] = (
        "Depth by priority, ages, delayed and parked tasks are known only with Redis as the broker. "
        "See the Broker tab for the length of each queue."
    )

    def view(self, app: Celery, query: PageQuery) -> View:  # noqa: ARG002 - this tab has no filters
        """Return all queues."""
        with app.engine() as engine:
            found = read_snapshot(engine.link, engine.prefix, app.queue_names())
            limits = QueueLimits(engine.link, engine.prefix).in_force(app.settings.queue_limit_table)
            of_limits = list(_limit_blocks(engine, found.queues))
        ages = [queue.oldest_seconds for queue in found.queues if queue.oldest_seconds is not None]
        parked = sum(queue.parked_depth for queue in found.queues)
        dead = sum(queue.dead_depth for queue in found.queues)
        blocks: list[Block] = [
            Cards([
                Card("waiting", sum(queue.depth for queue in found.queues), tone="active"),
                Card("oldest", max(ages, default=None), "seconds"),
                Card("delayed", sum(queue.delayed for queue in found.queues)),
                Card("blocked", sum(queue.blocked for queue in found.queues)),
                Card("parked", parked, tone="warning" if parked else ""),
                Card("dead letters", dead, tone="danger" if dead else ""),
            ]),
            TableBlock(
                "Queues, in the order nodes take from them", COLUMNS,
                [{**_row(found.at, queue), "limit": limits.get(queue.name)} for queue in found.queues],
                "No queues; configure them with TASKAPP_QUEUES.", key="name",
            ),
        ]  # fmt: skip
        if parked:
            title = "Parked: waiting for a node with the task type"
            blocks.append(TableBlock(title, PARKED_COLUMNS, _parked(found.queues), ""))
        return View([*blocks, *of_limits], found.at, 3.0)


def _limit_blocks(engine: Engine, queues: list[QueueSnapshot]) -> Iterator[TableBlock]:
    admin = LimitsAdmin(engine.link, engine.prefix)
    limits = limit_rows(admin.read_limits(), queues)
    keys, are_all = admin.most_blocked([queue.name for queue in queues if queue.blocked], KEYS_MOST)
    if keys:
        some = "" if are_all else f", of the first {LANES_MOST:,} that wait"
        title = f"Blocked: the keys of limits for which most tasks wait{some}"
        yield TableBlock(title, BLOCKED_COLUMNS, _keys(keys, limits), "")
    if circuits := Circuits(engine.link, engine.prefix).read():
        rows = [{**each._asdict(), "state": each.state} for each in circuits[:LIMITS_MOST]]
        yield TableBlock("Circuits that are not closed: task types whose runs failed", CIRCUIT_COLUMNS, rows, "")
    if limits:
        rows = [_limit(row) for row in limits[:LIMITS_MOST]]
        yield TableBlock("Limits of tasks, by code or as set with taskapp limits", LIMIT_COLUMNS, rows, "")


def _row(now: float, queue: QueueSnapshot) -> dict[str, Any]:
    waiting = {f"priority_{priority}": each for priority, each in queue.waiting.items()}
    hints = {
        key: f"the next one has waited {each.oldest_seconds:.1f} s"
        for key, each in waiting.items()
        if each.oldest_seconds is not None
    }
    return {
        "name": queue.name, "depth": queue.depth, "oldest_seconds": queue.oldest_seconds, "hints": hints,
        **{key: each.depth or None for key, each in waiting.items()}, "delayed": queue.delayed,
        "next_due_at": now + queue.next_due_seconds if queue.next_due_seconds is not None else None,
        "blocked": queue.blocked, "parked": queue.parked_depth, "dead": queue.dead_depth,
    }  # fmt: skip


def _limit(row: LimitRow) -> dict[str, Any]:
    return {
        **row._asdict(), "kind": row.kind_text, "code": numbers_text(row.code), "set": numbers_text(row.set),
        "origin": row.origin,
    }  # fmt: skip


def _keys(keys: list[BlockedKey], limits: list[LimitRow]) -> list[dict[str, Any]]:
    numbers = {(row.kind, row.name): numbers_text({**row.code, **row.set}) for row in limits}
    return [
        {
            "limit": each.gate.limit, "key": each.gate.value, "number": each.number, "opens_at": each.opens_at,
            "why": _why(each.gate, numbers.get((each.gate.kind, each.gate.limit), "")),
        }
        for each in keys
    ]  # fmt: skip


def _why(gate: Gate, numbers: str) -> str:
    kind = gate.kind
    if gate.limit.startswith(OF_CIRCUITS):
        return "its circuit is open" if kind == "rate" else "its circuit is half-open, and another task is tried"
    if kind == "rate":
        return f"rate {numbers} used up, or paused" if numbers else "rate used up, or paused"
    if kind == "slots":
        return f"{numbers} run, as many as may" if numbers else "as many run as may"
    return "one with the same unique key runs"


def _parked(queues: list[QueueSnapshot]) -> list[dict[str, Any]]:
    return [
        {"queue": queue.name, "task": task, **each._asdict()} for queue in queues for task, each in queue.parked.items()
    ]
