"""The tab for nodes: what each runs and holds, and whether it is alive; drains them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from taskapp.app.application import Celery
from taskapp.engine.snapshot import NodeSnapshot, Snapshot, read_snapshot
from taskapp.monitor.flower.page.tab import Action, ActionRequest, Done, PageQuery, Tab
from taskapp.monitor.flower.page.view import Button, Card, Cards, Column, TableBlock, View
from taskapp.settings import get_settings

KINDS = {"async": "Coroutines", "thread": "Threads", "process": "Processes"}
DRAIN = Button(
    "drain", "Drain and stop", "danger",
    asks="Drain and stop {}? A draining node takes no new tasks, finishes running ones, returns the rest to their "
    "queues and exits; its supervisor may restart it.",
)  # fmt: skip


class NodesTab(Tab):
    """Nodes."""

    name: ClassVar[str] = "nodes"
    title: ClassVar[str] = "Nodes"
    about: ClassVar[str] = "Nodes that run tasks, as of their last heartbeats."
    order: ClassVar[int] = 50
    row_noun: ClassVar[str] = "nodes"
    without_engine: ClassVar[str] = (
        "Slots, leases and heartbeats of nodes are known only with Redis as the broker. "
        "See the Workers tab for what nodes report through events."
    )

    def view(self, app: Celery, query: PageQuery) -> View:  # noqa: ARG002 - this tab has no filters
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
                f"No nodes are running, so no tasks run. Start one with: celery -A {app.argument} worker",
                key="node", buttons=[DRAIN],
            ),
        ], found.at, 3.0)  # fmt: skip

    @property
    def actions(self) -> Mapping[str, Action]:
        """Drain, by node name."""
        return {"drain": _drain}


def _look(app: Celery) -> Snapshot:
    with app.engine() as engine:
        return read_snapshot(engine.link, engine.prefix, app.queue_names())


def _kinds(nodes: list[NodeSnapshot]) -> list[str]:
    others = sorted({kind for node in nodes for kind in node.slots if kind not in KINDS})
    return [*KINDS, *others]


def _key(node: NodeSnapshot) -> str:
    """Return the key of a node's row; a lost node may have a successor of the same name, so add its epoch."""
    return node.name if node.name and node.state != "lost" else f"{node.name or 'nameless'} · {node.epoch[:8]}"


def _row(now: float, node: NodeSnapshot) -> dict[str, Any]:
    shares = {kind: [node.used.get(kind, 0), slots] for kind, slots in node.slots.items() if slots}
    return {
        **shares, "node": _key(node), "state": node.state, "held": node.held, "load": node.load,
        "seen_at": min(now, now - get_settings().lease_seconds + node.lease_seconds), "started_at": node.started_at,
        "queues": ", ".join(node.queues), "may": ["drain"] if node.name and node.state == "running" else [],
    }  # fmt: skip


def _drain(app: Celery, order: ActionRequest) -> Done:
    there = {_key(node) for node in _look(app).nodes if node.state == "running" and node.name}
    names = [name for name in order.keys if name in there]
    if names:
        app.control.broadcast("shutdown", destination=names)
    problems = [f"{name!r} is not running" for name in order.keys if name not in there]
    return Done(len(names), f"asked {', '.join(map(repr, names)) or 'no node'} to drain and stop", problems)
