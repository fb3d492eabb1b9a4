"""A random history: whatever the other rows do, by seed, to nodes of all pools while tasks of all kinds run."""

from __future__ import annotations

import itertools
from collections import Counter

from taskapp.engine.counters import read_totals
from tests.faults.disturbances import Disturbances
from tests.faults.final_results import stored
from tests.faults.flow import Piece, random_flow
from tests.faults.harness import Bench
from tests.faults.history import SETUPS, History
from tests.faults.outcome import Outcome
from tests.faults.producers import Submission

FAULT = "random sequence of all faults, with tasks of all kinds"
PER_SECOND = 8
MOST_RUNS = 3


def play(bench: Bench) -> Outcome:
    """Do it for as long as the size says; then let all come to its end, and count id by id."""
    seconds = bench.sized(15.0, 60.0, 300.0)
    history = History(bench, SETUPS[: bench.sized(2, 3, 4)])
    producer, revoker = bench.start_submitter(), bench.start_submitter()
    pieces = random_flow(bench.random, int(seconds * PER_SECOND), ("", "_async", "_child"))
    producer.begin_workflows(*[piece.workflow for piece in pieces], per_second=PER_SECOND)
    revoker.begin_revoking([piece.revoked_id for piece in pieces if piece.revoked_id], over_seconds=seconds)
    history.go_on_for(seconds)
    history.heal()
    sent = producer.finish()
    revoker.finish()
    bench.runs.await_ended(_must_end(pieces, sent), bench.patience_seconds)
    bench.await_settled()
    bench.watch_for_repeats()
    bench.require_alive(*[node.worker for node in history.nodes])
    return _Verdict(bench, history.done, pieces, sent).outcome(history.counts)


def _must_end(pieces: list[Piece], sent: list[Submission]) -> set[str]:
    return {
        task_id
        for piece, one in zip(pieces, sent, strict=True)
        if one.acknowledged and piece.kind not in ("revoked", "once", "failing_chord")
        for task_id in one.tasks
    }


class _Verdict:
    def __init__(self, bench: Bench, done: Disturbances, pieces: list[Piece], sent: list[Submission]) -> None:
        self.bench, self.judge, self.runs, self.done = bench, bench.judge, bench.runs, done
        self.all = list(zip(pieces, sent, strict=True))
        self.sent = [(piece, one) for piece, one in self.all if one.acknowledged]
        bench.runs.refresh()
        self.results = {task_id: stored(bench.redis.client, task_id) for _, one in self.all for task_id in _ids(one)}
        self.letters = {letter.id: letter.reason for letter in bench.dead_letters()}

    def outcome(self, counts: Counter[str]) -> Outcome:
        self._judge_repeats()
        excused = self._judge_ends()
        self._judge_letters()
        self._judge_counters()
        self.judge.remark(", ".join(f"{number} {name}" for name, number in sorted(counts.items())))
        return self.bench.outcome([one for _, one in self.all], excused=excused)

    def _judge_repeats(self) -> None:
        """Every second run of an attempt follows one that was cut short."""
        unexplained = {
            f"{task_id} (on {runs[0].worker})"
            for task_id, runs in self.runs.by_id.items()
            for first, second in itertools.pairwise(runs)
            if first.retries == second.retries and not (self.done.explain(first) or self.done.explain_late(second))
        }
        self.judge.require_none(unexplained, "began again though nothing befell their first run")
        again = self.runs.repeated(self.runs.by_id)
        self.judge.remark(f"{len(again)} began again")

    def _judge_ends(self) -> set[str]:
        """Each piece came to the end that its kind has; return the ids that need not have run to their end."""
        excused: set[str] = set()
        wrong: dict[str, str] = {}
        for piece, one in self.sent:
            buried = self._crashed(one.tasks)
            got = self.results[one.id]
            status, value = got.get("status"), got.get("result")
            if buried:
                excused.update(one.tasks)
                right = status == "FAILURE"
            elif piece.kind == "failing":
                right = status == "FAILURE"
            elif piece.kind == "failing_chord":
                excused.add(one.id)
                right = status == "FAILURE" and self._ended_once_told(one.errback)
            elif piece.kind == "revoked":
                excused.add(one.id)
                right = status in ("REVOKED", "SUCCESS")
            elif piece.kind == "once":
                runs = self.runs.of(one.id)
                hit = any(self.done.explain(run) for run in runs)
                excused.update([one.id] if hit else [])
                right = len(runs) == 1 and (hit or (status == "SUCCESS" and value == piece.value))
            else:
                right = status == "SUCCESS" and value == piece.value
            if not right:
                wrong[one.id] = f"{piece.kind} {one.id}: {str(got)[:160]}"
        self.judge.require_none(list(wrong.values()), "came to a wrong end")
        return excused

    def _ended_once_told(self, errback: str | None) -> bool:
        return errback is not None and self.results[errback].get("status") == "SUCCESS"

    def _crashed(self, task_ids: list[str]) -> set[str]:
        """Return those that were buried because their process died under them, thrice."""
        return {task_id for task_id in task_ids if self.letters.get(task_id) == "crashed"}

    def _judge_letters(self) -> None:
        for task_id in self._crashed(list(self.letters)):
            runs = self.runs.of(task_id)
            hit = sum(self.done.explain(run) for run in runs)
            self.judge.require(hit >= MOST_RUNS, f"{task_id} was buried after {hit} runs that were cut short")
        failing = {
            task_id for piece, one in self.all if piece.kind in ("failing", "failing_chord") for task_id in _ids(one)
        }
        others = {
            f"{task_id} {reason}"
            for task_id, reason in self.letters.items()
            if reason != "crashed" and task_id not in failing
        }
        self.judge.require_none(others, "are among the dead letters")

    def _judge_counters(self) -> None:
        """The engine counted each end once; those of tasks that run at most once may be lost with their node."""
        with self.bench.redis.link() as link:
            totals = read_totals(link, "")
        once = {one.id for piece, one in self.all if piece.kind == "once"}
        ran = self.runs.by_id.keys() - once
        ends = Counter(result.get("status") for task_id, result in self.results.items() if task_id in ran)
        for status, what in (("SUCCESS", "completed"), ("FAILURE", "failed")):
            counted = Counter[str]()
            for (each, task, _), number in totals.tasks.items():
                if each == what and task.startswith("faults.") and task != "faults.hold_once":
                    counted[task] += number
            held = f"counted as {what}: {dict(counted)}, results of that kind: {ends[status]}"
            self.judge.require(counted.total() == ends[status], held)


def _ids(one: Submission) -> list[str]:
    return [*one.tasks, *([one.errback] if one.errback else [])]
