"""Totals of task events, counted on the server in the same step as the event.

So a count outlives the processes that read it, and all readers see the same. Runs are counted by
outcome, with their waiting time and duration; a delivery, a burial and a crash are each
counted by the script that carries it out. Task types beyond the first 200, and names that no node has announced,
share the label ``other``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from taskapp.redis.keys import Keys
from taskapp.redis.link import Link, all_answered

BAR = "\x1f"
"""Separates the parts of a field's name, see ``prelude.lua``."""
RUN_BUCKETS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
WAIT_BUCKETS_SECONDS = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
)  # fmt: skip
BEYOND = "+Inf"
_RUN_NAMES = (*map(repr, RUN_BUCKETS_SECONDS), BEYOND)
_WAIT_NAMES = (*map(repr, WAIT_BUCKETS_SECONDS), BEYOND)
MINUTES_KEPT = 120

LONGEST_SECONDS = 100 * 365 * 86_400.0
"""Maximum duration to count; a longer one comes from a wrong clock or a wrong time in a message."""


class CountedRun(NamedTuple):
    """The end of one run, as the script ``settle`` counts it."""

    task: str
    what: str
    """``completed``, ``failed``, ``retried``, ``revoked``, ``rejected`` or ``ignored``."""
    run_seconds: float | None = None
    """Duration; ``None``: it did not run, or its duration is not counted."""
    wait_seconds: float | None = None
    """How long it waited to start; ``None``: not counted."""


def counted_fields(run: CountedRun) -> tuple[str | int, ...]:
    """Return the arguments of ``STEP_RUN`` in ``settlement`` for ``run``: each duration as its bucket and in us."""
    task, what, run_seconds, wait_seconds = run
    run_le, run_us, wait_le, wait_us = "", 0, "", 0
    if run_seconds is not None:
        run_seconds = min(max(run_seconds, 0.0), LONGEST_SECONDS)
        run_le, run_us = _RUN_NAMES[bisect_left(RUN_BUCKETS_SECONDS, run_seconds)], int(run_seconds * 1e6)
    if wait_seconds is not None:
        wait_seconds = min(max(wait_seconds, 0.0), LONGEST_SECONDS)
        wait_le, wait_us = _WAIT_NAMES[bisect_left(WAIT_BUCKETS_SECONDS, wait_seconds)], int(wait_seconds * 1e6)
    return task, what, run_le, run_us, wait_le, wait_us


def as_text(run: CountedRun) -> bytes:
    """Return ``run`` as ``note.lua`` reads it."""
    # No task type has a name with a bar.
    run = run._replace(task=run.task.replace(BAR, " "))
    return BAR.join(map(str, counted_fields(run))).encode(errors="replace")


@dataclass
class Spread:
    """A histogram; each bucket counts the values between the previous bound and its own."""

    buckets: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    """Sum of all values."""


@dataclass
class Totals:
    """All totals."""

    tasks: dict[tuple[str, str, str], int] = field(default_factory=dict)
    """Number of events by kind (``received``, ``completed``, ``failed``, ``retried``, ``revoked``, ``rejected``,
    ``ignored``, ``crashed``, ``dead``), task type and queue."""
    runs: dict[str, Spread] = field(default_factory=dict)
    """Durations of successful runs, by task type."""
    waits: dict[str, Spread] = field(default_factory=dict)
    """Times that tasks waited for their first start, by queue."""


class Minute(NamedTuple):
    """Totals of one minute."""

    at: int
    """Start of the minute, Unix seconds by the clock of Redis."""
    tasks: dict[tuple[str, str], int]
    """Number of events by kind, as in ``Totals``, and queue."""
    waits: dict[str, tuple[int, float]]
    """By queue: number of tasks that started for the first time, and the sum of seconds they had waited."""


def read_totals(link: Link, prefix: str) -> Totals:
    """Return all totals; errors are those of ``Link.command``."""
    totals = Totals()
    for (what, *labels), number in _fields(link.command("HGETALL", Keys(prefix)("totals"))):
        if len(labels) != (1 if what.endswith("_us") else 2):
            continue  # an earlier release also counted names with bars
        if what in ("run", "wait"):
            bucket, label = labels
            _spread(totals, what, label).buckets[bucket] += number
        elif what in ("run_us", "wait_us"):
            _spread(totals, what[:-3], labels[0]).seconds += number / 1e6
        else:
            task, queue = labels
            totals.tasks[what, task, queue] = number
    return totals


def _spread(totals: Totals, what: str, label: str) -> Spread:
    return (totals.runs if what == "run" else totals.waits).setdefault(label, Spread())


def read_minutes(link: Link, prefix: str, count: int = 60) -> list[Minute]:
    """Return the last ``count`` minutes, at most ``MINUTES_KEPT``, oldest first; the last one is not over yet."""
    keys = Keys(prefix)
    last = int(link.command("TIME")[0]) // 60
    numbers = range(last - min(count, MINUTES_KEPT) + 1, last + 1)
    answers = all_answered(link.pipeline([("HGETALL", keys("minute", str(number))) for number in numbers]))
    return [_minute(number * 60, answer) for number, answer in zip(numbers, answers, strict=True)]


def _minute(at: int, answer: list[Any]) -> Minute:
    tasks: dict[tuple[str, str], int] = {}
    waits: Counter[str] = Counter()
    waited_us: Counter[str] = Counter()
    for (what, queue), number in _fields(answer):
        if what == "waits":
            waits[queue] = number
        elif what == "wait_us":
            waited_us[queue] = number
        else:
            tasks[what, queue] = number
    return Minute(at, tasks, {queue: (number, waited_us[queue] / 1e6) for queue, number in waits.items()})


def _fields(answer: list[bytes]) -> Iterator[tuple[list[str], int]]:
    for name, number in zip(answer[::2], answer[1::2], strict=True):
        yield name.decode(errors="replace").split(BAR), int(number)
