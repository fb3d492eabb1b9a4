from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Queue
from prometheus_client import Counter, Histogram, generate_latest

from taskapp.monitor import events
from taskapp.monitor.depth import queue_depths
from taskapp.monitor.events import EventCounter
from taskapp.monitor.exporter import ScrapeCollector
from taskapp.monitor.metrics import MAX_TASK_TYPES, METRICS, Metrics
from taskapp.settings import load_settings

ROOT = Path(__file__).parents[2]
QUEUES = ("high", "default")
ROUTES = {"shop.pay": "high", "shop.*": "default"}
PAY = {"type": "shop.pay", "queue": "high"}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(QUEUES)


@pytest.fixture
def count(metrics: Metrics) -> EventCounter:
    return EventCounter(metrics, ROUTES)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def event(kind: str, uuid: str = "1", at: float = 100.0, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "uuid": uuid, "timestamp": at, "hostname": "celery@web-1", **fields}


def sent(uuid: str = "1", at: float = 100.0, **fields: Any) -> dict[str, Any]:
    return event("task-sent", uuid, at, **{"name": "shop.pay", "queue": "high", "eta": None, "retries": 0, **fields})


def received(uuid: str = "1", at: float = 101.0, **fields: Any) -> dict[str, Any]:
    return event("task-received", uuid, at, **{"name": "shop.pay", "eta": None, "retries": 0, **fields})


def test_one_task_is_counted_from_submit_to_success(metrics: Metrics, count: EventCounter) -> None:
    for one in (sent(), received(), event("task-started", at=102.0), event("task-succeeded", runtime=0.25)):
        count(one)

    assert value(metrics, "taskapp_tasks_received_total", **PAY) == 1
    assert value(metrics, "taskapp_tasks_completed_total", **PAY) == 1
    assert value(metrics, "taskapp_tasks_failed_total", **PAY) == 0
    assert value(metrics, "taskapp_task_run_seconds_sum", type="shop.pay") == 0.25
    assert value(metrics, "taskapp_task_queue_wait_seconds_sum", queue="high") == 2.0
    assert value(metrics, "taskapp_exporter_events_total") == 4


def test_events_in_any_order_give_the_same_wait(metrics: Metrics, count: EventCounter) -> None:
    for one in (received(), event("task-started", at=102.0), event("task-succeeded", runtime=0.25), sent()):
        count(one)

    assert value(metrics, "taskapp_tasks_completed_total", **PAY) == 1
    assert value(metrics, "taskapp_task_queue_wait_seconds_sum", queue="high") == 2.0


def test_a_task_delivered_twice_waited_once(metrics: Metrics, count: EventCounter) -> None:
    count(sent())
    for at in (102.0, 500.0):
        count(received())
        count(event("task-started", at=at))

    assert value(metrics, "taskapp_tasks_received_total", **PAY) == 2
    assert value(metrics, "taskapp_task_queue_wait_seconds_count", queue="high") == 1
    assert value(metrics, "taskapp_task_queue_wait_seconds_sum", queue="high") == 2.0


def test_a_retry_counts_as_retried_and_its_pause_is_no_wait(metrics: Metrics, count: EventCounter) -> None:
    for one in (
        sent(), received(), event("task-started", at=101.0),
        sent(at=101.5, retries=1, eta="2026-01-01T00:01:00"), event("task-retried"),
        received(retries=1), event("task-started", at=160.0), event("task-failed"),
    ):  # fmt: skip
        count(one)

    assert value(metrics, "taskapp_tasks_retried_total", **PAY) == 1
    assert value(metrics, "taskapp_tasks_failed_total", **PAY) == 1
    assert value(metrics, "taskapp_tasks_completed_total", **PAY) == 0
    assert value(metrics, "taskapp_task_queue_wait_seconds_sum", queue="high") == 1.0


def test_a_due_time_is_no_wait(metrics: Metrics, count: EventCounter) -> None:
    for one in (sent(eta="2026-01-01T01:00:00"), received(), event("task-started", at=3700.0)):
        count(one)

    assert value(metrics, "taskapp_task_queue_wait_seconds_count", queue="high") is None


def test_a_node_ahead_of_the_publisher_by_its_clock_gives_no_negative_wait(
    metrics: Metrics, count: EventCounter
) -> None:
    for one in (sent(at=100.0), received(), event("task-started", at=99.0)):
        count(one)

    assert value(metrics, "taskapp_task_queue_wait_seconds_sum", queue="high") == 0


def test_the_queue_of_a_silent_publisher_is_that_of_the_route(metrics: Metrics, count: EventCounter) -> None:
    count(received("1"))
    count(received("2", name="shop.list"))

    assert value(metrics, "taskapp_tasks_received_total", **PAY) == 1
    assert value(metrics, "taskapp_tasks_received_total", type="shop.list", queue="default") == 1


def test_task_types_and_queues_beyond_the_bound_are_other(metrics: Metrics, count: EventCounter) -> None:
    for number in range(MAX_TASK_TYPES + 50):
        count(received(str(number), name=f"shop.task_{number}"))
        count(sent(str(number), name=f"shop.task_{number}", queue=f"queue-{number}"))
        count(event("task-succeeded", str(number), runtime=1))

    page = generate_latest(metrics.registry).decode()
    types = set(re.findall(r'type="([^"]*)"', page))
    assert len(types) == MAX_TASK_TYPES + 1
    assert set(re.findall(r'queue="([^"]*)"', page)) == {"high", "default", "other"}
    assert value(metrics, "taskapp_tasks_completed_total", type="other", queue="other") == 51


def test_ids_are_remembered_up_to_a_bound(metrics: Metrics) -> None:
    count = EventCounter(metrics, ROUTES, max_tasks=10)
    for number in range(1_000):
        count(received(str(number)))
    count(event("task-succeeded", "0", runtime=1))
    count(event("task-succeeded", "999", runtime=1))

    assert len(count._known) == 10
    assert value(metrics, "taskapp_tasks_completed_total", **PAY) == 1
    assert value(metrics, "taskapp_tasks_completed_total", type="other", queue="other") == 1


def test_counters_of_known_types_exist_before_anything_fails(metrics: Metrics, count: EventCounter) -> None:
    assert value(metrics, "taskapp_tasks_failed_total", **PAY) == 0
    assert value(metrics, "taskapp_tasks_failed_total", type="shop.*", queue="default") is None

    count(sent(name="shop.new", queue="default"))

    assert value(metrics, "taskapp_tasks_failed_total", type="shop.new", queue="default") == 0


@pytest.mark.parametrize(
    "bad",
    [
        None, 5, "text", [], {}, {"type": ["x"]}, {"type": "task-received"}, {"type": "task-started", "uuid": ["x"]},
        sent(at="soon"), received(name=7), event("task-succeeded", runtime=float("nan")),
        event("task-succeeded", runtime="long"), {"type": "worker-heartbeat"},
        {"type": "worker-heartbeat", "hostname": "h", "freq": "often"},
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_event_is_counted_and_passed_over(metrics: Metrics, count: EventCounter, bad: object) -> None:
    count(bad)
    count(sent("2"))
    count(received("2"))

    assert value(metrics, "taskapp_exporter_events_invalid_total") == 1
    assert value(metrics, "taskapp_tasks_received_total", **PAY) == 1


@pytest.mark.parametrize("name", ["\ud800", "shop.\npay", "x" * 1_000, ""])
def test_a_name_that_cannot_be_a_label_does_not_spoil_the_page(
    metrics: Metrics, count: EventCounter, name: str
) -> None:
    count(sent(name=name))
    count(received(name=name))

    generate_latest(metrics.registry)
    assert value(metrics, "taskapp_tasks_received_total", type="other", queue="high") == 1


def test_a_node_is_up_until_three_heartbeats_are_missing(count: EventCounter, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr(events.time, "monotonic", lambda: now[0])
    heartbeat = {"type": "worker-heartbeat", "freq": 5.0}
    count({**heartbeat, "hostname": "celery@a"})
    count({**heartbeat, "hostname": "celery@b"})

    now[0] += 14.9
    assert count.nodes_up() == 2
    count({**heartbeat, "hostname": "celery@b"})
    now[0] += 0.2
    assert count.nodes_up() == 1
    count({"type": "worker-offline", "hostname": "celery@b"})
    assert count.nodes_up() == 0


def test_nodes_that_are_gone_are_forgotten(count: EventCounter, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_000.0]
    monkeypatch.setattr(events.time, "monotonic", lambda: now[0])

    for number in range(500):
        count({"type": "worker-heartbeat", "hostname": f"celery@pod-{number}"})
        now[0] += 1.0

    assert count.nodes_up() == 5
    assert len(count._nodes) < 10


@pytest.fixture
def memory_app() -> Iterator[Celery]:
    app = Celery(broker="memory://")
    app.conf.task_queues = [Queue(name) for name in QUEUES]
    yield app
    app.close()


def test_a_broker_without_priorities_tells_the_depth_of_the_queues_it_knows(memory_app: Celery) -> None:
    settings = load_settings({"TASKAPP_QUEUES": "high,default"})
    with Connection("memory://") as connection:
        queue = connection.SimpleQueue("high")
        queue.put("one")
        queue.put("two")

        depths = queue_depths(memory_app, settings)

        queue.clear()
    assert depths == {("high", "all"): 2}


def test_the_collector_gives_just_what_the_table_says(memory_app: Celery, count: EventCounter) -> None:
    collector = ScrapeCollector(memory_app, load_settings({}), count)

    collected = {family.name for family in collector.collect()}

    assert collected == {metric.name for metric in METRICS if metric.kind is None}
    assert collected == {family.name for family in collector.describe()}


def test_the_document_lists_every_metric_as_the_table_has_it() -> None:
    kinds = {Counter: "counter", Histogram: "histogram"}

    rows = [
        f"| `{metric.name}` | {kinds.get(metric.kind, 'gauge')} | {', '.join(metric.labels)} | {metric.help} |"
        for metric in METRICS
    ]

    document = (ROOT / "docs/metrics.md").read_text().splitlines()
    assert [line for line in document if line.startswith("| `")] == rows


def test_rules_and_their_tests_use_only_metrics_and_labels_of_the_table() -> None:
    known = {}
    for metric in METRICS:
        known[metric.name] = set(metric.labels)
        if metric.kind is Histogram:
            known.update({f"{metric.name}_{part}": {*metric.labels, "le"} for part in ("bucket", "sum", "count")})

    for path in sorted((ROOT / "deploy/prometheus").rglob("*.yml")):
        text = path.read_text()
        used = set(re.findall(r"\btaskapp_\w+", text))
        assert used <= set(known), path
        for name, selector in re.findall(r"\b(taskapp_\w+)\{([^}]*)\}", text):
            assert set(re.findall(r"(\w+)=", selector)) <= known[name], (path, name)
    rules = (ROOT / "deploy/prometheus/rules/taskapp.yml").read_text()
    assert re.findall(r"\btaskapp_\w+", rules), "the rules use none of our metrics"
