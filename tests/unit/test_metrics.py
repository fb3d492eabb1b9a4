"""The table of metrics, and what a scrape makes of what was read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from kombu import Connection, Queue
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric as Family

from taskapp.engine.completions import Backlog
from taskapp.engine.counters import Spread, Totals
from taskapp.engine.dead_letters import REASONS
from taskapp.engine.limit_numbers import LimitNumbers
from taskapp.engine.snapshot import LimitRef, NodeSnapshot, Parked, QueueSnapshot, Snapshot, Waiting
from taskapp.monitor.depth import declared_depths
from taskapp.monitor.exporter import BrokerCollector
from taskapp.monitor.limit_rows import LimitRow, limit_rows
from taskapp.monitor.metrics import METRICS, OTHER
from taskapp.monitor.scrape import LIMITS_MOST, Read, families, named
from taskapp.schedules.overview import Overview
from taskapp.settings import load_settings

ROOT = Path(__file__).parents[2]
QUEUES = ("high", "default")
ROUTES = {"shop.pay": "high"}


class Page:
    """What was read, as a page of metrics."""

    def __init__(self, **read: object) -> None:
        self._families = list(families(Read(**read), ROUTES, QUEUES))  # type: ignore[arg-type]
        self.registry = CollectorRegistry()
        self.registry.register(self)  # type: ignore[arg-type]

    def collect(self) -> Iterator[Family]:
        yield from self._families

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)

    def text(self) -> str:
        return generate_latest(self.registry).decode()


def queue(name: str = "high", **more: object) -> QueueSnapshot:
    terms = {"waiting": {}, "delayed": 0, "next_due_seconds": None, "parked": {}, "dead": {}, **more}
    return QueueSnapshot(name, **terms)  # type: ignore[arg-type]


def node(state: str = "running", **more: object) -> NodeSnapshot:
    terms = {
        "epoch": "e", "name": "celery@a", "state": state, "slots": {"async": 100, "thread": 4},
        "used": {"async": 30, "thread": 4}, "held": 40, "queues": ("high",), "load": 0.5, "started_at": 1.0,
        "lease_seconds": 10.0, **more,
    }  # fmt: skip
    return NodeSnapshot(**terms)  # type: ignore[arg-type]


def page_of(*nodes: NodeSnapshot, queues: list[QueueSnapshot] | None = None, **counts: int) -> Page:
    return Page(snapshot=Snapshot(1.0, queues or [queue()], list(nodes), counts))


def test_what_happened_to_tasks_is_told_by_type_and_queue() -> None:
    page = Page(totals=Totals({("failed", "shop.list", "default"): 3, ("completed", "shop.list", "default"): 4}))

    assert page.value("taskapp_tasks_failed_total", type="shop.list", queue="default") == 3
    assert page.value("taskapp_tasks_completed_total", type="shop.list", queue="default") == 4


def test_counters_exist_before_anything_fails() -> None:
    page = Page(totals=Totals({("received", "shop.list", "default"): 1}))

    assert page.value("taskapp_tasks_failed_total", type="shop.pay", queue="high") == 0
    assert page.value("taskapp_tasks_failed_total", type="shop.list", queue="default") == 0


def test_histograms_add_up() -> None:
    spread = Spread(Counter({"0.005": 2, "0.1": 3, "+Inf": 1}), 12.5)
    page = Page(totals=Totals(runs={"shop.pay": spread}, waits={"high": spread}))

    for name, labels in (("run", {"type": "shop.pay"}), ("queue_wait", {"queue": "high"})):
        name = f"taskapp_task_{name}_seconds"
        assert page.value(f"{name}_bucket", le="0.05", **labels) == 2
        assert page.value(f"{name}_bucket", le="1.0", **labels) == 5
        assert page.value(f"{name}_bucket", le="+Inf", **labels) == page.value(f"{name}_count", **labels) == 6
        assert page.value(f"{name}_sum", **labels) == 12.5


@pytest.mark.parametrize("name", ["\ud800", "shop.\npay", "x" * 1_000, ""])
def test_a_name_that_cannot_be_a_label_does_not_spoil_the_page(name: str) -> None:
    spread = Spread(Counter({"0.005": 1}), 1.0)
    totals = Totals({("failed", name, "high"): 1, ("failed", OTHER, "high"): 2}, {name: spread, OTHER: spread})
    page = Page(totals=totals)

    assert page.text()
    assert page.value("taskapp_tasks_failed_total", type=OTHER, queue="high") == 3
    assert page.value("taskapp_task_run_seconds_count", type=OTHER) == 2


def test_queues_nobody_named_are_other() -> None:
    spread = Spread(Counter({"0.005": 1}), 1.0)
    page = Page(totals=Totals({("failed", "shop.pay", f"q{n}"): 1 for n in range(9)}, {}, {"a": spread, "b": spread}))

    assert page.value("taskapp_tasks_failed_total", type="shop.pay", queue=OTHER) == 9
    assert page.value("taskapp_task_queue_wait_seconds_count", queue=OTHER) == 2


def test_what_waits_is_told_by_queue_and_priority() -> None:
    waiting = {0: Waiting(3, 12.0), 5: Waiting(0, None), 9: Waiting(2, None)}
    parked = {"shop.new": Parked(4, 60.0), "shop.old": Parked(1, 90.0)}
    page = page_of(queues=[queue(waiting=waiting, delayed=7, next_due_seconds=-2.5, parked=parked, dead={"failed": 8})])

    assert page.value("taskapp_queue_depth", queue="high", priority="0") == 3
    assert page.value("taskapp_queue_oldest_seconds", queue="high", priority="0") == 12.0
    assert page.value("taskapp_queue_oldest_seconds", queue="high", priority="5") == 0
    # Of a message that does not say when it was sent nobody knows the age.
    assert page.value("taskapp_queue_oldest_seconds", queue="high", priority="9") is None
    assert page.value("taskapp_queue_delayed", queue="high") == 7
    assert page.value("taskapp_queue_delayed_late_seconds", queue="high") == 2.5
    assert page.value("taskapp_queue_parked", queue="high") == 5
    assert page.value("taskapp_queue_parked_oldest_seconds", queue="high") == 90.0
    assert page.value("taskapp_dead_letters", queue="high", reason="failed") == 8


def test_blocked_tasks_are_told_by_queue_and_by_limit_but_never_by_key() -> None:
    blocked = {LimitRef("rate", "shop.pay"): 5, LimitRef("unique", "shop.pay"): 2}
    queues = [queue(blocked_by=blocked), queue("low")]
    rows = limit_rows({"shop.all": LimitNumbers("shop.all", {"most": 3}, {})}, queues)
    page = Page(
        snapshot=Snapshot(1.0, queues, [], {"full:high": 4, "full:elsewhere": 1, "full:nowhere": 2}), limits=rows
    )

    assert [page.value("taskapp_queue_blocked", queue=name) for name in ("high", "low")] == [7, 0]
    assert page.value("taskapp_limit_blocked", limit="shop.pay", kind="rate") == 5
    assert page.value("taskapp_limit_blocked", limit="shop.pay", kind="unique") == 2
    assert page.value("taskapp_limit_blocked", limit="shop.all", kind="slots") == 0
    assert [page.value("taskapp_queue_full_total", queue=name) for name in (*QUEUES, OTHER)] == [4, 0, 3]


def test_limits_beyond_the_first_are_other() -> None:
    rows = [LimitRow(f"shop.{number:03}", "rate", {}, {}, 1) for number in range(LIMITS_MOST + 7)]
    rows.append(LimitRow("x\ud800" * 300, "rate", {}, {}, 1))
    page = Page(snapshot=Snapshot(1.0, [], [], {}), limits=rows)

    assert page.value("taskapp_limit_blocked", limit=f"shop.{LIMITS_MOST - 1}", kind="rate") == 1
    assert page.value("taskapp_limit_blocked", limit=OTHER, kind="rate") == 8
    assert page.text().count("taskapp_limit_blocked{") == LIMITS_MOST + 1


def test_nodes_are_told_by_their_number_and_never_by_name() -> None:
    page = page_of(node(), node("draining"), node("lost"), lost_leases=5)

    assert [page.value("taskapp_nodes", state=state) for state in ("running", "draining", "lost")] == [1, 1, 1]
    # One that drains takes nothing more; one that is lost runs nothing any more.
    assert page.value("taskapp_queue_nodes", queue="high") == 1
    assert page.value("taskapp_slots", kind="async") == 200
    assert page.value("taskapp_slots_used", kind="thread") == 8
    assert page.value("taskapp_messages_held") == 120
    assert page.value("taskapp_leases_lost_total") == 5
    assert "celery@a" not in page.text()


def test_redis_tells_of_its_memory_and_its_files() -> None:
    info = {
        "used_memory": "5", "maxmemory": "9", "evicted_keys": "2", "rdb_last_bgsave_status": "ok", "aof_enabled": "0",
        "aof_last_write_status": "err", "rdb_changes_since_last_save": "77", "rdb_last_save_time": "123",
    }  # fmt: skip
    page = Page(info=info)

    names = ("memory_bytes", "memory_limit_bytes", "evicted_keys_total", "persistence_failing", "unsaved_changes")
    assert [page.value(f"taskapp_redis_{name}") for name in names] == [5, 9, 2, 1, 77]
    assert Page(info={**info, "aof_enabled": "1"}).value("taskapp_redis_unsaved_changes") == 0
    assert Page(info={}).value("taskapp_redis_memory_bytes") is None


def test_beats_are_told_by_what_is_late() -> None:
    page = Page(schedules=Overview({"active": 3}, 1.5, None))

    assert page.value("taskapp_schedules", state="active") == 3
    assert page.value("taskapp_beat_lateness_seconds") == 1.5
    assert page.value("taskapp_beat_last_tick_timestamp_seconds") == 0


def test_what_waits_for_the_history_is_told() -> None:
    page = Page(finished=Backlog(7, 3, 2, 61.5))

    names = ("waiting", "oldest_seconds", "dropped_total", "aside_total")
    assert [page.value(f"taskapp_history_{name}") for name in names] == [7, 61.5, 3, 2]


@pytest.fixture
def memory_app() -> Iterator[Celery]:
    app = Celery(broker="memory://")
    app.conf.task_queues = [Queue(name) for name in QUEUES]
    yield app
    app.close()


def test_a_broker_that_is_no_redis_tells_the_depth_of_the_queues_it_knows(memory_app: Celery) -> None:
    with Connection("memory://") as connection:
        waiting = connection.SimpleQueue("high")
        waiting.put("one")
        waiting.put("two")

        depths = declared_depths(memory_app, QUEUES)

        waiting.clear()
    assert depths == {"high": 2}


def test_a_page_has_just_the_families_of_the_table(memory_app: Celery) -> None:
    collector = BrokerCollector(memory_app, load_settings({}))  # type: ignore[arg-type]
    # A counter's family goes without the end of its name.
    wanted = [metric.name.removesuffix("_total") for metric in METRICS]

    assert [family.name for family in collector.collect()] == wanted
    assert [family.name for family in named()] == wanted


def test_the_document_lists_every_metric_as_the_table_has_it() -> None:
    rows = [f"| `{metric.name}` | {metric.kind} | {', '.join(metric.labels)} | {metric.help} |" for metric in METRICS]

    document = (ROOT / "docs/metrics.md").read_text().splitlines()
    assert [line for line in document if line.startswith("| `")] == rows


DEPLOYED = [
    path
    for folder in ("prometheus", "alertmanager", "grafana")
    for path in sorted((ROOT / "deploy" / folder).rglob("*"))
    # Of dashboards, what was made of the tables.
    if path.is_file() and path.suffix not in {".py", ".pyc"}
]
FROM_PROMETHEUS = {"job", "instance"}
"""Labels that a scrape adds."""


@pytest.mark.parametrize("path", DEPLOYED, ids=lambda path: str(path.relative_to(ROOT)))
def test_rules_dashboards_and_their_tests_use_only_metrics_and_labels_of_the_table(path: Path) -> None:
    known = {series: {*metric.labels, "le"} for metric in METRICS for series in metric.series()}
    text = path.read_text().replace('\\"', '"')

    assert set(re.findall(r"\btaskapp_\w+", text)) <= set(known)
    for name, selector in re.findall(r"\b(taskapp_\w+)\{([^}]*)\}", text):
        assert set(re.findall(r"(\w+)(?:=|!=|=~|!~)", selector)) <= known[name] | FROM_PROMETHEUS, name


def test_rules_and_dashboards_use_only_recorded_series_that_a_rule_records() -> None:
    texts = [path.read_text() for path in DEPLOYED]
    recorded = {name for text in texts for name in re.findall(r"record: (taskapp:\w+)", text)}

    assert recorded
    assert {name for text in texts for name in re.findall(r"\btaskapp:\w+", text)} <= recorded


def test_rules_use_metrics_of_the_table() -> None:
    assert re.findall(r"\btaskapp_\w+", (ROOT / "deploy/prometheus/rules/taskapp.yml").read_text())


def test_a_reason_nothing_died_of_yet_is_told_as_none() -> None:
    page = page_of(queues=[queue(dead={"failed": 8})], **{"dropped:failed": 3})

    for reason in REASONS:
        assert page.value("taskapp_dead_letters", queue="high", reason=reason) == (8 if reason == "failed" else 0)
        assert page.value("taskapp_dead_letters_dropped_total", reason=reason) == (3 if reason == "failed" else 0)
