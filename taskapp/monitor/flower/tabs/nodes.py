"""Nodes: what each runs and holds, whether it is alive; drain one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from taskapp.app.application import Application
from taskapp.engine.snapshot import NodeSnapshot, Snapshot, read_snapshot
from taskapp.monitor.flower.page.tab import Action, ActionRequest, Asked, Done, Tab
from taskapp.monitor.flower.page.view import Button, Card, Cards, Column, TableBlock, View
from taskapp.settings import get_settings

KINDS = {"async": "Coroutines", "thread": "Threads", "process": "Processes"}
DRAIN = Button(
    "drain", "Drain and stop", "danger",
    asks="Stop {}? It takes no more tasks, lets what runs finish, gives the rest back and ends; "
    "whatever supervises it may start it again.",
)  # fmt: skip


class NodesTab(Tab):
    """Nodes."""

    name: ClassVar[str] = "nodes"
    title: ClassVar[str] = "Nodes"
    about: ClassVar[str] = "Who runs tasks, what they say of themselves at each heartbeat."
    order: ClassVar[int] = 50
    without_engine: ClassVar[str] = (
        "Slots, leases and heartbeats of nodes are known only with Redis as the broker. "
        "The tab Workers shows what their events say here."
    )

    def view(self, app: Application, asked: Asked) -> View:  # noqa: ARG002 - there is nothing to ask for
        """Return all nodes."""
        found = _look(app)
        nodes = sorted(found.nodes, key=lambda node: (node.name, node.started_at or 0.0))
        lost = sum(node.state == "lost" for node in nodes)
        kinds = [kind for kind in _kinds(nodes) if any(node.slots.get(kind) for node in nodes)]
        columns = (
            Column("node", "Node", "code"), Column("state", "State", "state"),
            *(Column(kind, KINDS.get(kind, kind), "share") for kind in kinds),
            Column("held", "Holds", "count"), Column("load", "Load", "decimal"),
            Column("seen_at", "Heartbeat", "time"), Column("started_at", "Started", "time"),
            Column("queues", "Queues"),
        )  # fmt: skip
        return View([
            Cards([
                Card("running", sum(node.state == "running" for node in nodes), tone="success"),
                Card("draining", sum(node.state == "draining" for node in nodes)),
                Card("lost", lost, tone="danger" if lost else ""),
                Card("tasks held", sum(node.held for node in nodes), tone="active"),
            ]),
            TableBlock(
                "Nodes", columns, [_row(found.at, node) for node in nodes],
                "No node runs, so nothing is done. Start one with: celery -A taskapp worker",
                key="node", buttons=[DRAIN],
            ),
        ], found.at, 3.0)  # fmt: skip

    @property
    def actions(self) -> Mapping[str, Action]:
        """Drain."""
        return {"drain": _drain}


def _look(app: Application) -> Snapshot:
    with app.engine() as lent:
        return read_snapshot(lent.link, lent.prefix, get_settings().queues)


def _kinds(nodes: list[NodeSnapshot]) -> list[str]:
    others = sorted({kind for node in nodes for kind in node.slots if kind not in KINDS})
    return [*KINDS, *others]


def _key(node: NodeSnapshot) -> str:
    """Return what names it here: a node that is lost may have a successor of the same name."""
    return node.name if node.name and node.state != "lost" else f"{node.name or 'nameless'} · {node.epoch[:8]}"


def _row(now: float, node: NodeSnapshot) -> dict[str, Any]:
    shares = {kind: [node.used.get(kind, 0), slots] for kind, slots in node.slots.items() if slots}
    return {
        **shares, "node": _key(node), "state": node.state, "held": node.held, "load": node.load,
        "seen_at": min(now, now - get_settings().lease_seconds + node.lease_seconds), "started_at": node.started_at,
        "queues": ", ".join(node.queues), "may": ["drain"] if node.name and node.state == "running" else [],
    }  # fmt: skip


def _drain(app: Application, order: ActionRequest) -> Done:
    there = {_key(node) for node in _look(app).nodes if node.state == "running" and node.name}
    names = [name for name in order.keys if name in there]
    if names:
        app.control.broadcast("shutdown", destination=names)
    problems = [f"{name!r} does not run" for name in order.keys if name not in there]
    return Done(len(names), f"told {', '.join(map(repr, names)) or 'nobody'} to drain and stop", problems)
