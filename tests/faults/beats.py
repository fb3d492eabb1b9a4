"""Several real beats, and what is done to the one that leads."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass

from taskapp.schedules.reader import Register
from taskapp.schedules.record import LeaderInfo
from tests.faults.harness import Bench
from tests.faults.outcome import play_for
from tests.faults.producers import ROOT
from tests.support import Process, clean_environment, eventually

TAKEOVER_SECONDS = 10.0
STANDS_BY = "this one is on standby"


@dataclass
class Beat:
    """One beat; after a restart it is the same one."""

    name: str
    process: Process

    @property
    def times_stood_by(self) -> int:
        """How often it noticed that another leads."""
        return self.process.output().count(STANDS_BY)

    def signal(self, number: int) -> float:
        """Send a signal; return when, Unix seconds."""
        os.kill(self.process.pid, number)
        return time.time()


@dataclass
class Takeover:
    """While nobody led."""

    fault: str
    from_at: float
    until_at: float
    """When another queued its first tick; or the same one, where it was frozen for less than its lease."""
    is_led_by_another: bool

    @property
    def seconds(self) -> float:
        """How long."""
        return self.until_at - self.from_at


def start_beat(bench: Bench, name: str) -> Beat:
    """Start ``celery -A taskapp beat`` with a data folder of its own."""
    variables = clean_environment(
        TASKAPP_BROKER_URL=bench.redis.url, TASKAPP_DATA_DIR=str(bench.directory / f"data-{name}"),
        TASKAPP_CANARY_SECONDS="0", PYTHONPATH=str(ROOT),
    )  # fmt: skip
    argv = [sys.executable, "-m", "celery", "-A", "taskapp", "beat", "--loglevel", "INFO"]
    return Beat(name, Process(argv, bench.directory / f"{name}.log", variables, cwd=bench.directory))


class Beats:
    """The beats of a row."""

    def __init__(self, bench: Bench, schedules: Register, count: int) -> None:
        self._bench, self._schedules = bench, schedules
        self.all = [start_beat(bench, f"beat-{number}") for number in range(count)]
        self.takeovers: list[Takeover] = []

    def leading(self, within_seconds: float = 30.0) -> Beat:
        """Return the one that leads, as soon as one of those that live does."""
        return eventually(self._leading, within_seconds)

    def _leading(self) -> Beat | None:
        for beat in self.all:
            assert beat.process.returncode is None, f"{beat.name} exited: {beat.process.output()[-600:]}"
        # What a beat calls itself ends with its process id.
        pid = self._schedules.leader().name.rpartition(".")[2]
        return next((beat for beat in self.all if str(beat.process.pid) == pid), None)

    def kill_leader(self) -> None:
        """SIGKILL the leader; restart it when another leads."""
        beat, before = self.leading(), self._schedules.leader()
        killed_at = beat.signal(signal.SIGKILL)
        beat.process.kill()
        self._await_takeover("killed", before, killed_at)
        beat.process.start()

    def freeze_leader(self, seconds: float) -> None:
        """SIGSTOP to the leader, SIGCONT after ``seconds``; where another leads then, it must notice and do nothing."""
        beat, before = self.leading(), self._schedules.leader()
        stood_by, frozen_at = beat.times_stood_by, beat.signal(signal.SIGSTOP)
        try:
            while time.time() < frozen_at + seconds and self._schedules.leader().token == before.token:
                play_for(0.02)
            if is_led_by_another := self._schedules.leader().token != before.token:
                self._await_takeover("frozen", before, frozen_at)
                play_for(frozen_at + seconds - time.time())
        finally:
            thawed_at = beat.signal(signal.SIGCONT)
        if is_led_by_another:
            leader = self._schedules.leader()
            eventually(lambda: beat.times_stood_by > stood_by, 5)
            self._bench.judge.require(
                self._schedules.leader().token == leader.token,
                f"{beat.name} leads again {time.time() - thawed_at:.1f} s after its thaw",
            )
        else:
            self._await_tick("frozen for a moment", frozen_at, thawed_at)

    def _await_takeover(self, fault: str, before: LeaderInfo, from_at: float) -> None:
        def ticked() -> float | None:
            leader = self._schedules.leader()
            is_new = leader.token != before.token and (leader.tick_at or 0.0) > from_at + 0.5
            return leader.tick_at if is_new else None

        tick_at = eventually(ticked, 3 * TAKEOVER_SECONDS, every_seconds=0.01) or 0.0
        self.takeovers.append(Takeover(fault, from_at, tick_at, is_led_by_another=True))

    def _await_tick(self, fault: str, from_at: float, thawed_at: float) -> None:
        eventually(lambda: (self._schedules.leader().tick_at or 0.0) > thawed_at, TAKEOVER_SECONDS)
        self.takeovers.append(Takeover(fault, from_at, time.time(), is_led_by_another=False))

    def close(self) -> None:
        """SIGKILL to all."""
        for beat in self.all:
            beat.process.kill()
