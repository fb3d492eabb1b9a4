"""Traces: real web processes, workers and beats send their spans to a collector, which shows one trace."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import Process, RedisServer, clean_environment, eventually

pytest.importorskip(
    "opentelemetry.exporter.otlp.proto.http", reason="OpenTelemetry, the extra 'tracing', is not installed"
)

from tests.integration.collector import Collector, Span

StartWorker = Callable[..., Process]
Act = Callable[..., str]
TASKS = "tests.integration.traced"

pytestmark = pytest.mark.slow


def submit(task: str) -> str:
    return f"submit {TASKS}.{task}"


def run(task: str) -> str:
    return f"run {TASKS}.{task}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def traced_worker(worker: StartWorker, collector: Collector) -> StartWorker:
    """Start a worker that traces."""

    def start(*options: str, **env: str) -> Process:
        return worker(*options, TASKAPP_INCLUDE=TASKS, TASKAPP_TRACING="1", **(collector.variables | env))

    return start


@pytest.fixture
def act(redis_server: RedisServer, collector: Collector, tmp_path: Path) -> Act:
    """Do something in a web process with a span of its own; return what it prints: its trace."""

    def act(*arguments: str, **env: str) -> str:
        variables = clean_environment(
            TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(tmp_path / "data"), TASKAPP_TRACING="1",
            **collector.variables,
        )  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", f"from {TASKS} import main; main()", *arguments], env=variables | env, timeout=60,
            capture_output=True, check=False, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return act


def one(spans: list[Span]) -> Span:
    assert len(spans) == 1, spans
    return spans[0]


CANVAS = Counter({
    ("", "web"): 1,
    # A chain: each step hangs under the run of the step before.
    ("web", submit("double")): 1, (submit("double"), run("double")): 1,
    (run("double"), submit("add_on_loop")): 1,
    (run("add_on_loop"), submit("add_in_child")): 1,
    # A chord: its header, a retry in it, what counts its end, and its body.
    ("web", submit("flaky")): 1, (submit("flaky"), run("flaky")): 2, (run("flaky"), submit("flaky")): 1,
    ("web", submit("add_in_child")): 1, (submit("add_in_child"), run("add_in_child")): 2,
    ("web", "submit taskapp.finish_chord"): 1, ("submit taskapp.finish_chord", "run taskapp.finish_chord"): 1,
    ("run taskapp.finish_chord", submit("total")): 1, (submit("total"), run("total")): 1,
    # A coroutine that submits others at once.
    ("web", submit("spawn")): 1, (submit("spawn"), run("spawn")): 1,
    (run("spawn"), submit("add_on_loop")): 3, (submit("add_on_loop"), run("add_on_loop")): 4,
})  # fmt: skip


def wait_for_canvas(collector: Collector, trace_id: str) -> None:
    """Wait for as many spans as the canvas has; fail with those that are missing, and those that are there instead."""
    try:
        eventually(lambda: collector.edges(trace_id).total() >= CANVAS.total(), within_seconds=60)
    except AssertionError:
        found = collector.edges(trace_id)
        pytest.fail(f"missing: {CANVAS - found}; instead: {found - CANVAS}")


@pytest.mark.parametrize("pool", ["", "prefork", "threads"])
def test_a_chain_a_chord_a_retry_and_coroutines_are_one_trace(
    traced_worker: StartWorker, collector: Collector, act: Act, pool: str
) -> None:
    traced_worker(*(["-P", pool] if pool else []))

    trace_id = act("canvas", "web")

    wait_for_canvas(collector, trace_id)
    assert collector.edges(trace_id) == CANVAS
    assert {span.trace_id for span in collector.spans} == {trace_id}
    assert {span.service for span in collector.spans} == {"web", "taskapp"}
    first, second = sorted(collector.named(run("flaky")), key=lambda span: span.attributes["taskapp.attempt"])
    assert (first.attributes["taskapp.state"], second.attributes["taskapp.state"]) == ("RETRY", "SUCCESS")
    assert first.is_error
    assert first.description == "ConnectionError: the first time"
    assert not second.is_error


def test_a_chord_whose_results_lie_elsewhere_is_one_trace(
    traced_worker: StartWorker, collector: Collector, act: Act, redis_server: RedisServer, tmp_path: Path
) -> None:
    (tmp_path / "results").mkdir()
    results = RedisServer(redis_server.binary, tmp_path / "results")
    try:
        traced_worker(TASKAPP_RESULT_URL=results.url)
        trace_id = act("canvas", "web", TASKAPP_RESULT_URL=results.url)
        wait_for_canvas(collector, trace_id)
    finally:
        results.close()

    # Who ends the chord is found out when its last part is counted.
    of_end = {
        edge: count for edge, count in collector.edges(trace_id).items() if edge[1] == "submit taskapp.finish_chord"
    }
    assert of_end == {(submit("add_in_child"), "submit taskapp.finish_chord"): 1} or of_end == {
        (submit("flaky"), "submit taskapp.finish_chord"): 1
    }
    assert {span.trace_id for span in collector.spans} == {trace_id}
    assert collector.edges(trace_id)["run taskapp.finish_chord", submit("total")] == 1


@pytest.mark.parametrize("pool", ["", "prefork", "solo"])
def test_no_span_tells_what_a_task_type_masks(
    traced_worker: StartWorker, collector: Collector, act: Act, pool: str
) -> None:
    traced_worker(*(["-P", pool] if pool else []))

    act("denied", "web")

    # Six in the worker, one of them twice, and one in the web process.
    def runs() -> Counter[str]:
        return Counter(span.name for span in list(collector.spans) if span.name.startswith("run "))

    expected = Counter({run(f"deny_{name}"): 1 for name in ("on_loop", "in_child", "silently")})
    expected += Counter({run("deny_twice"): 2, run("deny_on_thread"): 3})
    eventually(lambda: runs().total() >= expected.total() or None, within_seconds=60)
    assert runs() == expected
    failed = [span for span in collector.spans if span.name.startswith("run ")]
    assert "4111" not in repr(collector.spans)
    assert all(span.is_error and span.attributes["error.type"] == "ValueError" for span in failed)
    assert {span.description for span in failed} == {"ValueError: no such card: ***", "ValueError: ***"}
    for span in failed:
        [(name, event)] = span.events
        assert (name, event["exception.type"]) == ("exception", "builtins.ValueError")
    assert any("in deny" in dict(span.events)["exception"]["exception.stacktrace"] for span in failed)


def test_a_span_says_what_is_known_of_its_task(traced_worker: StartWorker, collector: Collector, act: Act) -> None:
    traced_worker()

    act("failing", "web")

    failed = one(eventually(lambda: collector.named(run("fail"))))
    sent = one(collector.named(submit("fail")))
    assert (sent.kind, failed.kind) == ("PRODUCER", "CONSUMER")
    common = {
        "messaging.system": "redis", "messaging.destination.name": "default",
        "messaging.message.id": failed.attributes["messaging.message.id"],
        "taskapp.task_type": f"{TASKS}.fail", "taskapp.attempt": 1,
    }  # fmt: skip
    assert sent.attributes == {**common, "messaging.operation.name": "submit", "messaging.operation.type": "create"}
    waited_seconds = failed.attributes.pop("taskapp.queue_wait_seconds")
    assert 0 <= waited_seconds < 60
    assert failed.attributes.pop("taskapp.node").startswith("w1@")
    assert failed.attributes == {
        **common, "messaging.operation.name": "run", "messaging.operation.type": "process",
        "taskapp.state": "FAILURE", "error.type": "ValueError",
    }  # fmt: skip
    assert failed.is_error
    [(name, told)] = failed.events
    assert (name, told["exception.type"], told["exception.message"]) == ("exception", "ValueError", "as asked")
    assert "raise ValueError(text)" in told["exception.stacktrace"]


@pytest.mark.parametrize("pool", ["", "prefork"])
def test_a_span_says_how_long_a_task_could_have_run(
    traced_worker: StartWorker, collector: Collector, act: Act, pool: str
) -> None:
    traced_worker(*(["-P", pool] if pool else []))

    act("due", "web")

    ran = one(eventually(lambda: collector.named(run("double"))))
    assert 0 <= ran.attributes["taskapp.queue_wait_seconds"] < 600


def test_a_run_over_its_hard_limit_has_a_span_that_says_so(
    traced_worker: StartWorker, collector: Collector, act: Act
) -> None:
    traced_worker()

    trace_id = act("limited", "web")

    for name in ("hang", "hang_in_child"):
        span = one(eventually(lambda name=name: collector.named(run(name))))
        assert span.trace_id == trace_id
        assert span.is_error
        assert [event[1]["exception.type"].rpartition(".")[2] for event in span.events] == ["TimeLimitExceeded"]


def test_a_thousand_tasks_in_one_step_are_a_thousand_runs_of_the_trace(
    traced_worker: StartWorker, collector: Collector, act: Act
) -> None:
    traced_worker()

    trace_id = act("many", "web")

    expected = {
        ("", "web"): 1,
        ("web", submit("add_on_loop")): 1_000,
        (submit("add_on_loop"), run("add_on_loop")): 1_000,
    }
    eventually(lambda: collector.edges(trace_id) == expected, within_seconds=60)


def test_submits_of_coroutines_keep_to_their_own_requests(
    traced_worker: StartWorker, collector: Collector, act: Act
) -> None:
    traced_worker()

    trace_id = act("together", "web")

    expected = {("", "web"): 1, (submit("add_on_loop"), run("add_on_loop")): 20}
    for number in range(20):
        request = f"request {number}"
        expected |= {("web", request): 1, (request, submit("add_on_loop")): 1, (request, f"later {number}"): 1}
    eventually(lambda: collector.edges(trace_id).total() >= 81)
    assert collector.edges(trace_id) == expected


def test_a_submit_by_a_name_nobody_here_knows_leaves_the_current_span_alone(collector: Collector, act: Act) -> None:
    trace_id = act("by_name", "web")

    assert collector.edges(trace_id) == {("", "web"): 1, ("web", "submit elsewhere.unknown"): 1}


def test_a_program_without_spans_of_its_own_begins_the_trace_with_the_submit(
    traced_worker: StartWorker, collector: Collector, act: Act
) -> None:
    traced_worker()

    act("failing", OTEL_SERVICE_NAME="script")

    failed = one(eventually(lambda: collector.named(run("fail"))))
    assert collector.edges(failed.trace_id) == {("", submit("fail")): 1, (submit("fail"), run("fail")): 1}
    assert one(collector.named(submit("fail"))).service == "script"


def test_each_tick_of_a_schedule_begins_a_trace(
    traced_worker: StartWorker, collector: Collector, redis_server: RedisServer, tmp_path: Path
) -> None:
    traced_worker()
    variables = clean_environment(
        TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(tmp_path / "data"), TASKAPP_TRACING="1",
        TASKAPP_CANARY_SECONDS="1", **collector.variables,
    )  # fmt: skip
    beat = Process(
        [sys.executable, "-m", "celery", "-A", "taskapp", "beat"], tmp_path / "beat.log", variables, tmp_path
    )
    whole = {("", "submit taskapp.canary"): 1, ("submit taskapp.canary", "run taskapp.canary"): 1}
    try:
        runs = eventually(lambda: len(found := collector.named("run taskapp.canary")) >= 2 and found)
        # Beat and node send their spans by themselves: that of the submit may be the later one.
        for span in runs:
            eventually(lambda span=span: collector.edges(span.trace_id) == whole)
    finally:
        beat.close()

    assert len({span.trace_id for span in runs}) == len(runs)


def test_log_lines_for_machines_name_the_trace(traced_worker: StartWorker, collector: Collector, act: Act) -> None:
    log = traced_worker(TASKAPP_LOG_FORMAT="json")

    trace_id = act("failing", "web")

    span = one(eventually(lambda: collector.named(run("fail"))))
    lines = [json.loads(line) for line in log.output().splitlines() if line.startswith("{")]
    line = one([line for line in lines if line["message"] == "about to fail"])
    assert (line["trace_id"], line["span_id"]) == (trace_id, span.span_id)
    assert lines[0]["trace_id"] is None


def test_what_is_not_asked_for_is_not_there(worker: StartWorker, collector: Collector, act: Act) -> None:
    worker(TASKAPP_INCLUDE=TASKS, **collector.variables)

    printed = act("looking", TASKAPP_TRACING="0")

    assert printed.splitlines() == ["[]", "[[], None]"]
    assert collector.spans == []
    # What is looked for is there where it is asked for.
    assert "taskapp.tracing.spans" in act("looking")


@pytest.mark.parametrize("pool", ["", "prefork"])
def test_the_last_spans_of_a_node_and_of_its_child_processes_are_sent_as_it_ends(
    traced_worker: StartWorker, collector: Collector, act: Act, pool: str
) -> None:
    node = traced_worker(*(["-P", pool] if pool else []), OTEL_BSP_SCHEDULE_DELAY="60000")

    trace_id = act("canvas", "web")
    node.terminate()

    assert collector.edges(trace_id) == CANVAS
