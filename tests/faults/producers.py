"""Producers of their own, and what came of each ``delay()``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Submission:
    """What came of one ``delay()``: acknowledged, or the error it raised. Times by CLOCK_MONOTONIC."""

    id: str
    sent_at: float
    answered_at: float
    countdown: float | None
    error: str | None
    message: str | None
    parts: list[str] = field(default_factory=list)
    """Tasks that go before ``id``: the earlier links of a chain, the header of a chord."""
    errback: str | None = None
    """The task that is to run in place of ``id``, if one of ``parts`` fails."""

    @property
    def tasks(self) -> list[str]:
        """The ids of all tasks it stands for, an errback aside."""
        return [*self.parts, self.id]

    @property
    def acknowledged(self) -> bool:
        """Whether ``delay()`` returned."""
        return self.error is None

    @property
    def took_seconds(self) -> float:
        """How long ``delay()`` took."""
        return self.answered_at - self.sent_at

    @property
    def due_at(self) -> float:
        """When the task is due; at once where no countdown was given."""
        return self.sent_at + (self.countdown or 0.0)


def acknowledged(submissions: Iterable[Submission]) -> list[str]:
    """Return the ids of all tasks of those that ``delay()`` returned for."""
    return [task_id for submission in submissions if submission.acknowledged for task_id in submission.tasks]


def step(task: str, *args: Any, **options: Any) -> dict[str, Any]:
    """Return one task of a chain or chord."""
    return {"task": task, "args": list(args), "options": options}


def chain_of(*steps: dict[str, Any]) -> dict[str, Any]:
    """Return ``steps`` as a chain: each gets the result of the one before."""
    return {"chain": list(steps)}


def chord_of(
    header: Iterable[dict[str, Any]], body: dict[str, Any], errback: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return a chord: ``body`` gets the results of ``header``; ``errback`` runs if there will be none."""
    return {"header": list(header), "body": body, "errback": errback}


class Submitter:
    """A producer process; see ``tests.faults.submitter``."""

    def __init__(self, directory: Path, name: str, environment: dict[str, str]) -> None:
        with (directory / f"{name}.log").open("ab") as errors:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.submitter"], cwd=ROOT, env=environment,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True, text=True,
            )  # fmt: skip
        if self._answer().strip() != "ready":
            raise AssertionError(f"submitter {name} did not start: {(directory / f'{name}.log').read_text()[-2000:]}")

    def begin(
        self, task: str, options: list[dict[str, Any]], *, args: Iterable[Any] = (),
        per_second: float | None = None, at_once: bool = False,
    ) -> None:  # fmt: skip
        """Start to submit one ``task`` for each of ``options``: in turn, at a rate, or eight at once."""
        self._order(
            {"task": task, "options": options, "args": list(args), "per_second": per_second, "at_once": at_once}
        )

    def begin_workflows(self, *workflows: dict[str, Any], per_second: float | None = None) -> None:
        """Start to submit single steps, chains and chords in turn, at a rate."""
        self._order({"workflows": workflows, "options": workflows, "per_second": per_second, "at_once": False})

    def begin_revoking(self, task_ids: list[str], *, over_seconds: float) -> None:
        """Start to revoke ``task_ids`` in turn, evenly over a time; what cannot be revoked then is passed over."""
        self._order({"revoke": task_ids, "per_second": len(task_ids) / over_seconds})

    def _order(self, order: dict[str, Any]) -> None:
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(order) + "\n")
        self._popen.stdin.flush()

    def finish(self) -> list[Submission]:
        """Wait for what ``begin`` started and return what came of it."""
        return [Submission(**record) for record in json.loads(self._answer())]

    def submit(self, task: str, count: int = 1, *args: Any, **options: Any) -> list[Submission]:
        """Submit ``count`` times ``task(*args)`` with the same options."""
        self.begin(task, [options] * count, args=args)
        return self.finish()

    def submit_workflows(self, *workflows: dict[str, Any]) -> list[Submission]:
        """Submit single steps, chains and chords in turn."""
        self.begin_workflows(*workflows)
        return self.finish()

    def kill(self) -> None:
        """SIGKILL to the producer."""
        self._popen.kill()
        self._popen.communicate()

    def _answer(self) -> str:
        assert self._popen.stdout is not None
        return self._popen.stdout.readline()
