"""Entry points for the slots of all pools: run one message's task on this thread or on the event loop."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping
from contextvars import copy_context
from functools import partial
from sys import getrecursionlimit
from typing import Any

import msgspec
from celery.app import app_or_default
from celery.utils.nodenames import gethostname
from kombu.exceptions import DecodeError
from kombu.serialization import loads, prepare_accept_content

from taskapp import recursion
from taskapp.background import emptied_in_child
from taskapp.engine.headers import FOLLOW_UPS, BadHeader, FollowUps, check_follow_ups
from taskapp.engine.settlement import Settlement, settling
from taskapp.errors.wording import sound
from taskapp.execution import forked
from taskapp.execution.coroutines import Awaiting, Closed
from taskapp.execution.failures import as_failure, ends_the_run
from taskapp.logs.task_lines import task_lines
from taskapp.transport.codec import read_follow_ups
from taskapp.worker.run.other_brokers import carry_out
from taskapp.worker.run.refused import broken_off, refuse, unreported
from taskapp.worker.run.storing import off_the_loop
from taskapp.worker.run.tick_dedup import may_repeat, outcome_of_repeat
from taskapp.worker.run.tracer import Outcome, Runner

Ran = tuple[int, Any, float | None, Settlement | None]
"""``(failed, value, seconds, settlement)`` of a run.

``failed`` is 0 with the return value as text, or 1 with an ``ExceptionInfo``; it is ``UNREPORTED`` in place of 1 if
nothing about the run has been stored.
"""

_decode_json: Any = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], FollowUps | None]).decode
_runners: dict[str, Runner] = emptied_in_child({})


def run(*message: Any) -> Ran:
    """Run a task on this thread, in a copy of the context, so that no other task sees the variables it sets.

    Args:
        message: The task type's name, the task id, the message's headers, body, content type and encoding.
    """
    forks = forked.forks
    try:
        return copy_context().run(_run, *message)
    except BaseException as error:
        if ends_the_run(sound(error)):
            raise
        raised = error
    finally:
        if getrecursionlimit() < recursion.limit:
            recursion.restore()
        if forked.forks != forks:  # by code that runs outside the task's function, such as a serializer
            forked.leave()
    # Threads and greenlets of Celery's pools lose an exception raised here and keep the slot occupied forever.
    return unreported(as_failure(raised))


def _run(name: str, task_id: str, given: dict[str, Any], body: Any, content_type: str, encoding: str) -> Ran:
    task_lines.before_run(task_id)
    runner = runner_of(name, given)
    if may_repeat(given) and (dropped := outcome_of_repeat(runner, given)) is not None:
        return *dropped, None
    is_claimed = _is_claimed(given)
    settlement, raised = _settlement(runner, is_claimed=is_claimed), None
    with settling(settlement):
        try:
            try:
                args, kwargs = _arguments(runner, given, body, content_type, encoding)
            except Exception as error:  # noqa: BLE001 - the arguments may hold anything
                outcome = refuse(runner, given, error, read_follow_ups(body, content_type))
            else:
                outcome = runner.run(task_id, args, kwargs, given)
        except BaseException as error:  # noqa: BLE001 - from a hook, for example
            raised = error
        if raised is not None:
            outcome = broken_off(runner, task_id, given, raised, settlement)
    if settlement is None or is_claimed:
        return *outcome, settlement
    return *carry_out(runner, outcome, settlement), None


async def run_async(
    job: Awaiting, name: str, task_id: str, given: dict[str, Any], body: Any, content_type: str, encoding: str
) -> Ran:
    """Run a task whose function is a coroutine function on this event loop; see ``run``."""
    task_lines.before_run(task_id)
    runner = runner_of(name, given)
    if may_repeat(given) and (dropped := await asyncio.to_thread(outcome_of_repeat, runner, given)) is not None:
        return *dropped, None
    try:
        args, kwargs = _arguments(runner, given, body, content_type, encoding)
    except Exception as error:  # noqa: BLE001 - the arguments may hold anything
        run = _refuse(runner, given, error, read_follow_ups(body, content_type))
    else:
        run = runner.run_async(task_id, args, kwargs, given, job)
    is_claimed = _is_claimed(given)
    settlement = _settlement(runner, is_claimed=is_claimed)
    return await _to_its_end(job, run, runner, task_id, given, settlement, is_claimed=is_claimed)


async def _refuse(runner: Runner, given: dict[str, Any], error: Exception, follow_ups: Any) -> Outcome:
    outcome: Outcome = await off_the_loop(runner.backend, partial(refuse, runner, given, error, follow_ups))
    return outcome


async def _to_its_end(
    job: Awaiting, run: Coroutine[Any, Any, Outcome], runner: Runner, task_id: str, given: dict[str, Any],
    settlement: Settlement | None, *, is_claimed: bool,
) -> Ran:  # fmt: skip
    raised = None
    with settling(settlement):
        try:
            outcome = await run
        except Closed as closed:
            rest = closed.rest
            following = partial(_to_its_end, is_claimed=is_claimed)
            raise Closed(lambda: following(job, rest(), runner, task_id, given, settlement)) from closed
        except BaseException as error:
            if issubclass(type(error), GeneratorExit) and not job.is_current():
                raise  # this coroutine has been discarded
            raised = error
        if raised is not None:
            broken = partial(broken_off, runner, task_id, given, raised, settlement)
            outcome = await off_the_loop(runner.backend, broken)
    if settlement is None or is_claimed:
        return *outcome, settlement
    return *await asyncio.to_thread(carry_out, runner, outcome, settlement), None


def _settlement(runner: Runner, *, is_claimed: bool) -> Settlement | None:
    """Return the settlement that collects what a run leaves; ``None`` if everything is sent at once.

    That is the case for tasks acknowledged before they run, and on other brokers with deduplication, where Celery
    assumes that the follow-ups of a stored success have been sent.
    """
    collects = runner.task.acks_late and (is_claimed or not runner.deduplicates)
    if not collects:
        return None
    settlement = Settlement()
    if runner.budgeted is not None:
        settlement.budgeted = runner.budgeted
    return settlement


def _is_claimed(given: dict[str, Any]) -> bool:
    """Return whether the engine delivered the message, so that one step settles everything the run left."""
    return "lease" in (given.get("properties") or ())


def runner_of(name: str, given: dict[str, Any]) -> Runner:
    """Return the runner of a task type in this process."""
    runner = _runners.get(name)
    if runner is None:
        app: Any = app_or_default()
        runner = _runners[name] = Runner(app.tasks[name], app, given.get("hostname") or gethostname())
    return runner


def use_runner(name: str, runner: Runner) -> None:
    """Run the tasks of a type with ``runner``, until the runners are forgotten."""
    _runners[name] = runner


def forget_runners() -> None:
    """Drop the cached runners, because this is a new process or the task types have changed."""
    _runners.clear()


def decode(app: Any, body: Any, content_type: Any, encoding: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Return args, kwargs and embedded signatures of a message's body, which is already decoded if it has no type.

    Raises:
        Exception: The body cannot be decoded, or is not ``[args, kwargs, embed]``.
    """
    if not content_type:
        return _checked(body)
    if content_type == "application/json" and b"__type__" not in (raw := _raw(body)):
        # Faster than kombu's decoder, which spends most of its time on types that JSON lacks.
        args, kwargs, embed = _from_json(raw)
        return args, kwargs, embed or {}
    return _checked(loads(body, content_type, encoding, accept=prepare_accept_content(app.conf.accept_content)))


def _checked(content: Any) -> tuple[Any, Any, dict[str, Any]]:
    args, kwargs, embed = content
    if not isinstance(args, list | tuple) or not isinstance(kwargs, Mapping):
        raise ValueError("its body is not [args, kwargs, embed]")
    check_follow_ups(embed or {})
    return args, kwargs, {name: embed[name] for name in FOLLOW_UPS if name in embed} if embed else {}


def _raw(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else bytes(body)


def _from_json(raw: bytes) -> Any:
    try:
        return _decode_json(raw)
    except msgspec.DecodeError:
        return _checked(json.loads(raw))  # not valid JSON, but written by Python: NaN, lone surrogates


def _arguments(runner: Runner, given: dict[str, Any], body: Any, content_type: str, encoding: str) -> tuple[Any, Any]:
    """Decode the body into ``given``; return args and kwargs."""
    try:
        args, kwargs, embed = decode(runner.app, body, content_type, encoding)
    except BadHeader:
        raise
    except Exception as error:
        # An error type that can be stored: of JSON's own, only the name would remain.
        raise DecodeError(f"its body cannot be decoded: {error}") from error
    given.update(embed, args=args, kwargs=kwargs, hostname=runner.hostname, is_eager=False)
    return args, kwargs
