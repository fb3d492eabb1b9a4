"""Holds a history of tasks with limits against what is promised; see ``limit_tasks`` for the task types."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from itertools import pairwise

from tests.faults.final_results import stored
from tests.faults.leases_seen import Lease
from tests.faults.limit_history import Call, History, group_of, most_at_once
from tests.faults.limit_tasks import (
    DEBOUNCE_AT_MOST_SECONDS,
    DEBOUNCE_SECONDS,
    KEPT_SECONDS,
    MOST,
    RATE_BURST,
    RATE_PER_SECOND,
)

CLOCKS_SECONDS = 0.02
"""By how much times of the server may differ from those of clients, and a claim's own time from when it is seen."""
ANY = "*"


def judge(history: History) -> set[str]:
    """Require all promises; return the ids that need not have run to their end."""
    _judge_repeats(history)
    _judge_most(history)
    for name, _, calls in history.calls_by_group():
        for check in CHECKS.get(name, ()):
            check(history, calls)
    judge_rates(history)
    return _judge_ends(history)


def _judge_repeats(history: History) -> None:
    """An id ran twice only where a node died."""
    unexplained = {
        f"{task_id} (on {first.worker}, {second.worker})"
        for task_id, runs in history.bench.runs.by_id.items()
        for first, second in pairwise(runs)
        if first.retries == second.retries and not history.done.explain(first)
        and not history.done.explain_late(second)
    }  # fmt: skip
    history.bench.judge.require_none(unexplained, "ran twice though no node died")


def exceeded(history: History) -> set[str]:
    """Return the limits of concurrency that were exceeded, by runs or by claims, and by how much."""
    runs: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    claims: defaultdict[tuple[str, str], list[tuple[float, float]]] = defaultdict(list)
    for task_id, run in history.runs:
        if run.worker not in history.unwell:
            for each in _limits(task_id):
                runs[each].append((run.started_at, history.end_of(run)))
    for lease in history.leases or ():
        for each in _limits(lease.id):
            claims[each].append((lease.begun_at, lease.ended_at or float("inf")))
    found = set()
    for what, all_spans in (("runs", runs), ("claims", claims)):
        for (name, key), spans in all_spans.items():
            most, allowed = most_at_once(spans), MOST[name]["all" if key == ANY else "key"]
            if most > allowed:
                found.add(f"{most} {what} of {name} {key} at once, {allowed} allowed")
    return found


def _judge_most(history: History) -> None:
    history.bench.judge.require_none(exceeded(history), "limits were exceeded")


def _limits(task_id: str) -> list[tuple[str, str]]:
    name, key = group_of(task_id)
    levels = MOST.get(name, {})
    return [(name, key)] * ("key" in levels) + [(name, ANY)] * ("all" in levels)


# --- unique keys: CALLS are those of one task type and key, in the order they were made -------------------------------


def _own(calls: list[Call]) -> list[Call]:
    """Return the calls whose own id was queued."""
    return [call for call in calls if call.answer == call.id and not call.is_refused]


def _judge_disjoint(history: History, calls: list[Call], freed_at: Callable[[Call], float]) -> None:
    """No task got the key while another one had it."""
    for first, second in pairwise(_own(calls)):
        assert second.answered_at is not None
        freed = freed_at(first)
        early = freed - second.answered_at
        otherwise = f"{second.id} had the key {early:.3f} s before {first.id} left it"
        history.bench.judge.require(early <= CLOCKS_SECONDS, otherwise)


def _until_the_end(history: History, calls: list[Call]) -> None:
    ends = history.bench.runs
    _judge_disjoint(history, calls, lambda call: max((run.ended_at or 0.0 for run in ends.of(call.id)), default=0.0))
    _judge_answers(history, calls, lambda lease: lease.ended_at or float("inf"))


def _until_the_start(history: History, calls: list[Call]) -> None:
    if history.leases is not None:
        leases = history.leases_of
        _judge_disjoint(history, calls, lambda call: leases[call.id][0].begun_at if call.id in leases else 0.0)
    _judge_answers(history, calls, lambda lease: lease.begun_at)


def _for_a_time(history: History, calls: list[Call]) -> None:
    _judge_disjoint(history, calls, lambda call: call.sent_at + KEPT_SECONDS)


def _judge_answers(history: History, calls: list[Call], freed_at: Callable[[Lease], float]) -> None:
    """A call that got another task's id got one that had the key."""
    for call in calls:
        if call.answer == call.id or history.leases is None:
            continue
        assert call.answer is not None
        freed = max((freed_at(lease) for lease in history.leases_of.get(call.answer, ())), default=float("inf"))
        is_right = freed + CLOCKS_SECONDS >= call.sent_at and group_of(call.answer) == call.group
        history.bench.judge.require(is_right, f"{call.id} was answered with {call.answer}, which had left the key")


def _none_refused_silently(history: History, calls: list[Call]) -> None:
    for call in calls:
        history.bench.judge.require(call.is_refused == (call.answer != call.id), f"{call.id} was not refused")


def _with_the_latest_before_the_start(history: History, calls: list[Call]) -> None:
    """A run has the arguments of the latest call that came before its first claim."""
    by_id = {call.id: call for call in calls}
    for task_id in {call.answer for call in calls if call.answer}:
        leases = history.leases_of.get(task_id)
        runs = history.arguments.get(task_id)
        if not leases or not runs or (given := by_id.get(runs[0][1])) is None or given.answered_at is None:
            continue
        if len(leases) > 1:
            continue  # its first claim may have died before it wrote what it had
        later = [
            call.id
            for call in calls
            if call.answer == task_id and call.sent_at > given.answered_at
            and (call.answered_at or 0.0) < leases[0].begun_at - CLOCKS_SECONDS
        ]  # fmt: skip
        history.bench.judge.require(not later, f"{task_id} ran with {given.id}, not with {later}")


def _the_latest_ran(history: History, calls: list[Call]) -> None:
    """The arguments of the latest call ran; calls that overlap it may have come after it."""
    last = max(calls, key=lambda call: call.sent_at)
    latest = {call.id for call in calls if (call.answered_at or 0.0) >= last.sent_at}
    # Those of clients that were killed have no answer, and may have come last.
    latest |= {call.id for call in history.calls if call.group == last.group and call.answered_at is None}
    has_run = bool(latest & _ran_with(history))
    history.bench.judge.require(has_run, f"neither the latest call {last.id} ran nor one made meanwhile")


def _ran_with(history: History) -> set[str]:
    return {call for runs in history.arguments.values() for run, call in runs if run.ended_at is not None}


def _not_before_it_is_due(history: History, calls: list[Call]) -> None:
    """A debounced task starts some time after the call whose arguments it has, or the longest wait after the first."""
    by_id = {call.id: call for call in history.calls}
    for task_id in {call.answer for call in calls if call.answer}:
        for run, given in history.arguments.get(task_id, ())[:1]:
            due = min(by_id[given].sent_at + DEBOUNCE_SECONDS, by_id[task_id].sent_at + DEBOUNCE_AT_MOST_SECONDS)
            early = due - CLOCKS_SECONDS - run.started_at
            history.bench.judge.require(early <= 0, f"{task_id} started {early:.3f} s too early, with {given}")


CHECKS: dict[str, tuple[Callable[[History, list[Call]], None], ...]] = {
    "until_end": (_until_the_end,),
    "until_start": (_until_the_start,),
    "for_a_time": (_for_a_time,),
    "refused": (_until_the_end, _none_refused_silently),
    "replaced": (_until_the_end, _with_the_latest_before_the_start),
    "latest": (_the_latest_ran,),
    "debounced": (_the_latest_ran, _not_before_it_is_due),
}


# --- rates, turns, ends -----------------------------------------------------------------------------------------------


def judge_rates(history: History) -> None:
    """In no time more was claimed than burst + rate x time: each claim fills a bucket that leaks at the rate."""
    each, full_until = 1 / RATE_PER_SECOND, defaultdict[str, float](float)
    for lease in history.leases or ():
        name, key = group_of(lease.id)
        if name != "rated":
            continue
        full_until[key] = max(full_until[key], lease.begun_at) + each
        over = (full_until[key] - lease.begun_at) * RATE_PER_SECOND - RATE_BURST
        is_over = over > CLOCKS_SECONDS * RATE_PER_SECOND
        history.bench.judge.require(not is_over, f"{lease.id} was {over:.2f} tasks above the rate of {key}")


def claims_in_turn(history: History) -> list[str]:
    """Return the keys of ``fair`` in the order they were claimed, as long as tasks of each had not been claimed yet."""
    fair = [lease for lease in history.leases or () if group_of(lease.id)[0] == "fair"]
    claimed, last_first = set[str](), dict[str, int]()
    for position, lease in enumerate(fair):
        if lease.id not in claimed:
            claimed.add(lease.id)
            last_first[group_of(lease.id)[1]] = position
    return [group_of(lease.id)[1] for lease in fair[: min(last_first.values(), default=0)]]


def most_off(claims: list[str], weights: Mapping[str, float]) -> float:
    """Return how far the part that a key has of ``claims`` is from its weight's part at most, relatively."""
    number, total = Counter(claims), sum(weights.values())
    return max(abs(number[key] / (len(claims) * weight / total) - 1) for key, weight in weights.items())


def _judge_ends(history: History) -> set[str]:
    """What did not run was dropped or cancelled, as its type has it, and says so; return these ids."""
    client, excused, wrong = history.bench.redis.client, set[str](), set[str]()
    for task_id in history.acknowledged:
        name, result = group_of(task_id)[0], stored(client, task_id)
        status = result.get("status")
        if name == "dropped" and status == "FAILURE":
            excused.add(task_id)
            right = "NotStarted" in str(result)
        elif name == "cancelled" and status == "REVOKED":
            excused.add(task_id)
            right = True
        else:
            right = status == "SUCCESS"
        if not right:
            wrong.add(f"{task_id}: {str(result)[:200]}")
    history.bench.judge.require_none(wrong, "came to a wrong end")
    return excused
