"""Two beats as Celery has them, over the same broker: what row 11 is measured against."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter

from tests.faults.execution_log import SCHEDULE_VARIABLE, TICKS_SUFFIX
from tests.faults.harness import TASKS, Bench
from tests.faults.outcome import Outcome, play_for
from tests.faults.producers import ROOT
from tests.support import Process, clean_environment, eventually

PERIODS_SECONDS = (1, 2, 5)
ENTRIES = 30


def play_stock(bench: Bench) -> Outcome:
    """Let both send for a while; a due time that both send runs twice."""
    lasts_seconds = bench.sized(15, 60, 600)
    schedule = {f"job-{number}": PERIODS_SECONDS[number % len(PERIODS_SECONDS)] for number in range(ENTRIES)}
    bench.start_worker("a", "-Q", "default", concurrency=10, include=f"{TASKS},tests.faults.tick_tasks")
    beats = [_start(bench, f"beat-{number}", schedule) for number in range(2)]
    try:
        for beat in beats:
            eventually(lambda beat=beat: "Scheduler: Sending due task" in beat.output())  # type: ignore[misc]
        begun_at = time.monotonic()
        play_for(lasts_seconds)
    finally:
        for beat in beats:
            beat.kill()
    ticks = bench.runs.log.with_name(bench.runs.log.name + TICKS_SUFFIX)
    ran = Counter(line.split(" ")[2] for line in ticks.read_text().splitlines())
    took_seconds = time.monotonic() - begun_at
    due = sum(int(took_seconds // period) for period in schedule.values())
    twice = max(0, sum(ran.values()) - due)
    bench.judge.require(twice <= 2 * ENTRIES, f"{due} ticks were due, {sum(ran.values())} ran")
    return Outcome(
        sent=due, ran=sum(ran.values()), ran_twice=twice, passed=not bench.judge.problems, notes=bench.judge.notes
    )


def _start(bench: Bench, name: str, schedule: dict[str, int]) -> Process:
    argv = [
        sys.executable, "-m", "celery", "-A", "tests.faults.stock_app", "beat", "--loglevel", "INFO",
        "-s", str(bench.directory / name), "--pidfile", "",
    ]  # fmt: skip
    variables = clean_environment(
        PYTHONPATH=str(ROOT), FAULTS_STOCK_URL=bench.redis.url, **{SCHEDULE_VARIABLE: json.dumps(schedule)}
    )
    return Process(argv, bench.directory / f"{name}.log", variables, cwd=bench.directory)
