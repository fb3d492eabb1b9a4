"""Derives the state of a task from its message, result and notes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from celery import states

from taskapp.app.masks import Masked, redact
from taskapp.engine.circuits import OF_CIRCUITS
from taskapp.engine.limit_numbers import LimitsAdmin
from taskapp.engine.search import Found, Place, Search
from taskapp.engine.task_notes import Noted
from taskapp.errors import NoEngine
from taskapp.monitor.task_state.outcome import Outcome, read_outcome
from taskapp.monitor.task_state.states import Moment, State, TaskState, WaitsFor
from taskapp.transport.attempts_header import attempts_in
from taskapp.transport.codec import Unreadable, arguments_in, sent_at_of, unpack

SHOWN_MOST = 1_024
STATES = {states.SUCCESS: State.SUCCEEDED, states.FAILURE: State.FAILED, states.REVOKED: State.CANCELLED}
FINISHED = {State.SUCCEEDED: "succeeded", State.FAILED: "failed", State.DEAD: "failed", State.CANCELLED: "cancelled"}
PLACES = {Place.PARKED: State.PARKED, Place.BLOCKED: State.BLOCKED}
NOT_BEFORE = (State.DELAYED, State.RETRYING, State.BLOCKED)
"""States in which the time of its place is that of the next run."""
RUNS_OF_MESSAGE = 1_000
"""A result with this run number or a higher one was not written by a run of the first submitted message."""
NEVER_RAN = ("unknown task", "unreadable")


class Evidence(NamedTuple):
    """Everything known about a task, from all sources."""

    id: str
    found: Found | None
    headers: dict[str, Any]
    outcome: Outcome
    noted: Noted
    waits_for: WaitsFor | None = None
    sees_messages: bool = True
    """Whether the broker shows where messages are."""
    masked: Masked | None = None
    """The arguments that may be shown; ``None``: all."""

    @property
    def task(self) -> str:
        """Name of its task type."""
        letter = self.found.letter if self.found is not None else None
        return str(self.headers.get("task") or (letter.task if letter else "") or self.outcome.task)

    def masked_text(self, text: str) -> str:
        """Return ``text``, an error or a traceback, with masked arguments removed."""
        return text if self.masked is None else self.masked.strike(text)


def task_state(task_id: str, app: Any = None, on_step: Callable[[int], None] = lambda _: None) -> TaskState:
    """Return the state of the task ``task_id``; ``State.UNKNOWN`` if nothing is known about it.

    Takes a few milliseconds if the task is finished, delayed or held by a node; otherwise about a second per
    million ready messages, in steps short enough not to block the server.

    Args:
        task_id: Id of the task.
        app: The Celery application; ``None``: the current one.
        on_step: Called from time to time with the number of messages searched.

    Raises:
        redis.RedisError, OSError, kombu.exceptions.OperationalError: A server cannot be reached.
    """
    if app is None:
        from taskapp.celery import current

        app = current()
    if not task_id or not _is_text(task_id):
        return TaskState(task_id, State.UNKNOWN)
    return judge(evidence_of(task_id, app, on_step))


def evidence_of(task_id: str, app: Any, on_step: Callable[[int], None] = lambda _: None) -> Evidence:
    """Return what is known about a task; arguments and errors in it are not masked. See ``task_state``."""
    outcome = read_outcome(app, task_id)
    found, waits_for, sees_messages = None, None, True
    # A stored success is final, whatever else is found.
    if outcome.state != states.SUCCESS:
        try:
            with app.engine() as engine:
                found = Search(engine.link, engine.prefix, app.queue_names(), on_step).find(task_id)
                waits_for = _waits_for(found, LimitsAdmin(engine.link, engine.prefix))
        except NoEngine:
            sees_messages = False
        # It may have ended during the search: one step stores the result and removes the message.
        outcome = read_outcome(app, task_id)
    notes = app.open_notes()
    try:
        noted = notes.read(task_id) if notes is not None else Noted()
    finally:
        if notes is not None:
            notes.close()
    known = Evidence(task_id, found, _headers(found), outcome, noted, waits_for, sees_messages)
    return known._replace(masked=redact(app, known.task, lambda: arguments_of(known)))


def _waits_for(found: Found | None, limits: LimitsAdmin) -> WaitsFor | None:
    gate = found.gate if found is not None else None
    if gate is None:
        return None
    return WaitsFor(gate.kind, gate.limit, gate.value, tuple(limits.running(gate)))


def arguments_of(known: Evidence) -> tuple[Any, Any]:
    """Return args and kwargs of the task, not masked: as values, or as text if only that is stored."""
    return arguments_in(known.found.envelope) if known.found else (known.outcome.args, known.outcome.kwargs)


def _is_text(task_id: str) -> bool:
    try:
        return bool(task_id.encode())
    except UnicodeEncodeError:
        return False


def _headers(found: Found | None) -> dict[str, Any]:
    try:
        return dict(unpack(found.envelope)["headers"]) if found is not None else {}
    except (Unreadable, ValueError, TypeError):
        return {}


def judge(known: Evidence) -> TaskState:
    """Derive the task's state from ``known``, with masked arguments removed."""
    found, outcome, noted = known.found, known.outcome, known.noted
    state = _state(known)
    letter = found.letter if found is not None else None
    return TaskState(
        id=known.id,
        state=state,
        celery_state=outcome.state,
        task=known.task,
        queue=found.queue if found else outcome.queue,
        priority=found.priority if found else None,
        node=_node(known, state),
        attempts=_attempts(known, state),
        crashes=found.envelope.crashes if found else 0,
        next_at=found.at if found and found.at and state in NOT_BEFORE else None,
        waits_for=known.waits_for if state is State.BLOCKED else None,
        args=_arguments_text(known, "args"),
        kwargs=_arguments_text(known, "kwargs"),
        error=known.masked_text(_error(known, state)),
        traceback=known.masked_text(outcome.traceback),
        letter=letter.name if letter else "",
        progress=noted.progress,
        timeline=tuple(sorted(_timeline(known, state), key=lambda moment: moment.at)),
        log_lines=noted.lines,
        unreadable=outcome.unreadable,
        remark=_remark(known, state),
    )


def _state(known: Evidence) -> State:
    found, outcome = known.found, known.outcome
    if outcome.state == states.SUCCESS:
        return State.SUCCEEDED
    if found is None:
        return _state_without_message(known)
    if found.place is Place.LEASED:
        # A node discards a revoked task in two steps: it stores the result, then removes the message.
        return State.CANCELLED if outcome.state == states.REVOKED else State.RUNNING
    if found.place is Place.DEAD:
        return State.DEAD
    if known.noted.revoked_at is not None:
        return State.CANCELLED
    if found.place is Place.DELAYED:
        return State.RETRYING if _retries(known) else State.DELAYED
    return PLACES.get(found.place, State.QUEUED)


def _state_without_message(known: Evidence) -> State:
    celery_state = known.outcome.state
    if celery_state in STATES:
        return STATES[celery_state]
    if known.noted.cancelled_at is not None:
        return State.CANCELLED
    if not known.sees_messages and celery_state == states.RETRY:
        return State.RETRYING
    # Acknowledged before it ran, or on a broker that does not show its messages.
    return State.RUNNING if celery_state == states.STARTED else State.UNKNOWN


def _has_begun(known: Evidence) -> bool:
    """Return whether the run that holds the claim is known to have started: it stored a STARTED result."""
    found, outcome = known.found, known.outcome
    if outcome.state != states.STARTED:
        return False
    if found is None:
        return True
    replaced = int(known.headers.get("replaced_task_nesting") or 0)
    run = (replaced * 1_000_000 + _retries(known)) * 1_000 + min(found.envelope.deliveries, 999)
    return outcome.run == run


def _retries(known: Evidence) -> int:
    try:
        return int(known.headers.get("retries") or 0)
    except (TypeError, ValueError):
        return 0


def _node(known: Evidence, state: State) -> str:
    found, outcome = known.found, known.outcome
    if found is not None and found.letter is not None:
        return found.letter.node or outcome.node
    if state is State.RUNNING and found is not None:
        return found.node or (outcome.node if _has_begun(known) else "") or f"epoch {found.epoch[:8]}"
    return outcome.node


def _attempts(known: Evidence, state: State) -> int:
    found = known.found
    if found is None:
        return 0 if state is State.UNKNOWN or not known.outcome.node else known.outcome.attempts
    runs = _retries(known) + found.envelope.deliveries
    if found.place is Place.LEASED:
        return runs + 1
    letter = found.letter
    # A letter buried for crashes already counts them among its deliveries.
    return runs + 1 if letter is not None and letter.reason not in (*NEVER_RAN, "crashed") else runs


def _arguments_text(known: Evidence, name: str) -> str:
    text = str(known.headers.get(f"{name}repr") or _shown(getattr(known.outcome, name)))
    # Do not mask an empty text.
    return _shown(getattr(known.masked, name)) if known.masked is not None and text else text


def _shown(value: Any) -> str:
    text = "" if value is None else value if isinstance(value, str) else repr(value)
    return text if len(text) <= SHOWN_MOST else text[: SHOWN_MOST - 3] + "..."


def _error(known: Evidence, state: State) -> str:
    letter = known.found.letter if known.found else None
    if letter is not None:
        return known.outcome.error or letter.error
    if known.outcome.error or state is State.SUCCEEDED:
        return known.outcome.error
    return known.noted.retries[-1].error if known.noted.retries else ""


def _timeline(known: Evidence, state: State) -> Iterator[Moment]:
    found, outcome, noted = known.found, known.outcome, known.noted
    if (submitted_at := _submitted_at(known)) is not None:
        yield Moment(submitted_at, "submitted")
    if (due_at := _due_at(known)) is not None:
        yield Moment(due_at, "due")
    yield from _retries_of(known)
    if outcome.started_at is not None and (state is not State.RUNNING or _has_begun(known)):
        yield Moment(outcome.started_at, "started", f"on {outcome.node}" if outcome.node else "")
    if noted.revoked_at is not None:
        yield Moment(noted.revoked_at, "revoked")
    if noted.cancelled_at is not None:
        yield Moment(noted.cancelled_at, "cancelled")
    if outcome.finished_at is not None and state in FINISHED:
        yield Moment(outcome.finished_at, FINISHED[state], known.masked_text(outcome.error))
    if found is not None and found.place is Place.PARKED:
        yield Moment(found.at, "parked")
    if found is not None and found.letter is not None:
        yield Moment(found.at, "buried", found.letter.reason)


def _why_blocked(waits_for: WaitsFor) -> str:
    kind, limit, key, running = waits_for
    of_key = f" for the key {key!r}" if key else ""
    behind = f": {', '.join(running)}" if running else ""
    if limit.startswith(OF_CIRCUITS):
        state = "open" if kind == "rate" else f"half-open, and another task is tried{behind}"
        return f"the circuit of {limit.removeprefix(OF_CIRCUITS)} is {state}"
    if kind == "rate":
        return f"the rate of {limit}{of_key} is used up, or paused"
    if kind == "slots":
        return f"as many of {limit} run{of_key} as may run at once{behind}"
    return f"one of {limit} runs with the same unique key{f' {key!r}' if key else ''}{behind}"


def _retries_of(known: Evidence) -> Iterator[Moment]:
    """Yield the runs that ended with a retry: from the notes, and those that only the message knows."""
    noted = known.noted.retries
    known_attempts = {retry.attempt for retry in noted}
    kept = [attempt for attempt in attempts_in(known.headers) if attempt.number not in known_attempts]
    for number, at, text in (*((retry.attempt, retry.at, retry.error) for retry in noted), *kept):
        error = known.masked_text(text)
        yield Moment(at, "retried", f"attempt {number}: {error}" if error else "")


def _submitted_at(known: Evidence) -> float | None:
    """Return when the task was submitted; ``None`` if that is not recorded, such as after a retry."""
    headers, outcome = known.headers, known.outcome
    if known.noted.retries or _retries(known) or headers.get("replaced_task_nesting"):
        return None
    if (sent_at := sent_at_of(headers)) is not None:
        return sent_at
    return None if outcome.retries or outcome.run >= RUNS_OF_MESSAGE else outcome.submitted_at


def _due_at(known: Evidence) -> float | None:
    if known.found is not None and known.found.place is Place.DELAYED:
        return known.found.at
    try:
        eta = known.headers.get("eta")
        return datetime.fromisoformat(eta).timestamp() if eta else None
    except (TypeError, ValueError, OverflowError):
        return None


def _remark(known: Evidence, state: State) -> str:
    found = known.found
    if state is State.CANCELLED and found is not None:
        return "nodes will not run it; the first one to take its message discards it"
    if state is State.PARKED:
        return "no node that received it has its task type"
    if state is State.BLOCKED and known.waits_for is not None:
        return _why_blocked(known.waits_for)
    if state is State.RUNNING and found is None and known.sees_messages:
        return "it was acknowledged before it ran: whether its node is still alive is unknown"
    if state is State.RUNNING and found is not None:
        if found.is_lost:
            return "its node's lease has expired; the task is about to return to its queue"
        if not _has_begun(known):
            return "claimed; if it keeps a result, its start shows after 0.2 s"
    if state is State.UNKNOWN and known.noted.ran:
        return "its notes show that it ran; how it ended was not stored"
    if not known.sees_messages and state is State.UNKNOWN:
        return "this broker does not show where messages are: it may be waiting"
    return ""
