"""What is to be said of nodes and of what waits; pure, over what was read or answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from taskapp.monitor.doctor_checks import CheckOutcome, ok, warn

MANY_WAITING = 10_000
NAMED = 5
"""Nodes that are named."""

NOBODY_ANSWERS = (
    "look at the log of one: if its app signs (`app.setup_security()`), it drops what is not signed by somebody it "
    "trusts, so set TASKAPP_INCLUDE here as for nodes; with `-P solo` a long task keeps a node from answering"
)


class Leases(NamedTuple):
    """Which nodes the broker takes for alive."""

    alive: int
    ended: int
    """Of nodes that fell silent and whose messages nobody has taken over yet."""
    held_by_ended: int
    """How many messages those hold."""


def nodes(answering: Sequence[str], leases: Leases | None) -> CheckOutcome:
    """Judge who is there: nodes that answered a ping, and leases where the broker has them."""
    names = ", ".join(answering[:NAMED]) + (f" and {len(answering) - NAMED} more" if len(answering) > NAMED else "")
    start = "start one with `celery -A taskapp worker`"
    if leases is None:
        return ok(f"{len(answering)} answer: {names}") if answering else warn("no node answers", start)
    found = f"{leases.alive} alive by their leases, {len(answering)} answer{f': {names}' if names else ''}"
    if leases.ended and not leases.alive:
        lost = f"{leases.ended} fell silent with {leases.held_by_ended} tasks that nobody takes over"
        return warn(f"{found}; {lost}", f"{start}; it takes them over")
    if not leases.alive and not answering:
        return warn("none", start)
    if leases.alive and not answering:
        return warn(found, NOBODY_ANSWERS)
    if leases.alive > len(answering):
        return warn(found, "look at the log of the silent one; with `-P solo` a long task keeps it from answering")
    if leases.alive < len(answering):
        return warn(found, "those without a lease are no nodes of ours, or just start or stop; run this again")
    return ok(found)


def many_waiting(waiting: Mapping[str, int]) -> CheckOutcome:
    """Judge how much waits, by queue."""
    shown = ", ".join(f"{queue} {count}" for queue, count in waiting.items() if count) or "nothing"
    if any(count >= MANY_WAITING for count in waiting.values()):
        return warn(f"much: {shown}", "start more nodes, or find out why tasks take so long (Flower, Grafana)")
    return ok(shown)


def in_other_queues(queues: Sequence[str], waiting: Mapping[str, int]) -> CheckOutcome:
    """Judge whether something waits where no node of ours looks."""
    lost = [queue for queue, count in waiting.items() if count and queue not in queues]
    if not lost:
        return ok("nothing waits in a queue that is not in TASKAPP_QUEUES, as far as Celery declared them")
    shown = ", ".join(f"{waiting[queue]} in {queue!r}" for queue in lost)
    return warn(f"messages wait where no node looks: {shown}", f"set TASKAPP_QUEUES={','.join((*queues, *lost))}")


def held_by_stock_workers(held: int, signs: Sequence[str]) -> CheckOutcome:
    """Judge what lies in kombu's ``unacked``, given signs that its workers still run."""
    if not held:
        return ok("nothing of a stock worker is left")
    if signs:
        return warn(
            f"{held} messages are held by stock workers, which still run: {signs[0]}",
            "to switch over, stop those workers, then run `taskapp doctor --adopt`",
        )
    return warn(
        f"{held} messages of stock workers that are gone",
        "run `taskapp doctor --adopt`; with `--dry-run` it only shows",
    )
