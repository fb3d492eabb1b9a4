"""Judges nodes and waiting messages: pure functions over what was read from the broker or answered by nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from taskapp.monitor.doctor_checks import CheckOutcome, ok, warn

MANY_WAITING = 10_000
NAMED = 5
"""How many nodes to list by name."""

NOBODY_ANSWERS = (
    "check a node's log: an app that signs messages (`app.setup_security()`) drops those without a trusted "
    "signature, so set TASKAPP_INCLUDE here as on the nodes; with `-P solo` a long task keeps a node from answering"
)


class Leases(NamedTuple):
    """Which nodes the broker considers alive."""

    alive: int
    ended: int
    """Leases of nodes that fell silent and whose messages no other node has taken over yet."""
    held_by_ended: int
    """Number of messages those nodes hold."""
    shared_names: tuple[str, ...] = ()
    """Names that more than one node has."""


def nodes(answering: Sequence[str], leases: Leases | None, argument: str = "taskapp") -> CheckOutcome:
    """Judge which nodes are up, from the answers to a ping and, with Redis, the leases; ``argument`` is that of -A."""
    names = ", ".join(answering[:NAMED]) + (f" and {len(answering) - NAMED} more" if len(answering) > NAMED else "")
    start = f"start one with `celery -A {argument} worker`"
    if leases is None:
        return ok(f"{len(answering)} answer: {names}") if answering else warn("no node answers", start)
    found = f"{leases.alive} alive by their leases, {len(answering)} answer{f': {names}' if names else ''}"
    if leases.ended and not leases.alive:
        lost = f"{leases.ended} fell silent holding {leases.held_by_ended} tasks that no node takes over"
        return warn(f"{found}; {lost}", f"{start}; it takes them over")
    if not leases.alive and not answering:
        return warn("none", start)
    if leases.alive and not answering:
        return warn(found, NOBODY_ANSWERS)
    if leases.shared_names:
        return warn(
            f"{found}; more than one node is named {', '.join(leases.shared_names[:NAMED])}",
            "give each a name of its own: `celery worker -n web1@%h`; after a restart, look again in a minute",
        )
    if leases.alive > len(answering):
        return warn(found, "check the log of the silent node; with `-P solo` a long task keeps it from answering")
    if leases.alive < len(answering):
        return warn(found, "nodes without a lease are not taskapp nodes, or are just starting or stopping; run again")
    return ok(found)


def many_waiting(waiting: Mapping[str, int]) -> CheckOutcome:
    """Judge the backlog of each queue."""
    shown = ", ".join(f"{queue} {count}" for queue, count in waiting.items() if count) or "nothing"
    if any(count >= MANY_WAITING for count in waiting.values()):
        return warn(f"large backlog: {shown}", "start more nodes, or find out why tasks are slow (Flower, Grafana)")
    return ok(shown)


def parked(waiting: Mapping[str, int]) -> CheckOutcome:
    """Judge the messages that wait for a node that has their task type; ``waiting``: type to their number."""
    if not waiting:
        return ok("nodes have the type of every task")
    names = sorted(waiting, key=lambda name: (-waiting[name], name))
    shown = ", ".join(f"{waiting[name]} of {name!r}" for name in names[:NAMED])
    more = f" and {len(names) - NAMED} more types" if len(names) > NAMED else ""
    return warn(
        f"tasks whose type no node has: {shown}{more}",
        "correct the name where they are submitted, or start a node that imports its module; "
        "after TASKAPP_PARKED_SECONDS they become dead letters",
    )


def in_other_queues(served: Sequence[str], waiting: Mapping[str, int], *, declares: bool) -> CheckOutcome:
    """Judge whether messages wait in queues that no node consumes.

    Args:
        served: Queues that nodes consume, or are meant to.
        waiting: Queue to number of ready and delayed messages.
        declares: Whether ``TASKAPP_QUEUES`` lists the queues of the app.
    """
    lost = [queue for queue, count in waiting.items() if count and queue not in served]
    if not lost:
        return ok("every queue with messages has a node that consumes it")
    shown = ", ".join(f"{waiting[queue]} in {queue!r}" for queue in lost)
    remedy = (
        f"set TASKAPP_QUEUES={','.join((*served, *lost))}" if declares else f"start a node with -Q {','.join(lost)}"
    )
    return warn(f"messages in queues no node consumes: {shown}", remedy)


def held_by_stock_workers(held: int, signs: Sequence[str], argument: str = "taskapp") -> CheckOutcome:
    """Judge the messages in kombu's ``unacked``, given signs that its workers still run; ``argument``: that of -A."""
    adopt = "taskapp doctor --adopt" if argument == "taskapp" else f"taskapp -A {argument} doctor --adopt"
    if not held:
        return ok("no messages left by stock workers")
    if signs:
        return warn(
            f"{held} messages are held by stock workers that still run: {signs[0]}",
            f"to migrate, stop those workers, then run `{adopt}`",
        )
    return warn(
        f"{held} messages left by stock workers that are gone",
        f"run `{adopt}`; add `--dry-run` to see what it would do",
    )
