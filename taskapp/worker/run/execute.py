"""What a slot of any pool is given to run: one message's task, on this thread or on its event loop."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine, Mapping
from contextvars import copy_context
from typing import Any

import msgspec
from celery.app import app_or_default
from celery.utils.nodenames import gethostname
from kombu.exceptions import DecodeError
from kombu.serialization import loads, prepare_accept_content

from taskapp.engine.headers import FOLLOW_UPS, BadHeader, FollowUps, check_follow_ups
from taskapp.engine.settlement import Settlement, settling
from taskapp.errors.wording import sound
from taskapp.execution.coroutines import Awaiting, Closed
from taskapp.execution.failures import as_failure, ends_the_run
from taskapp.transport.codec import read_follow_ups
from taskapp.worker.run.other_brokers import carry_out
from taskapp.worker.run.refused import broken_off, refuse, unreported
from taskapp.worker.run.tick_dedup import held_back, is_asked_for
from taskapp.worker.run.tracer import Outcome, Runner

Ran = tuple[int, Any, float | None, Settlement | None]
"""1 and an ``ExceptionInfo``, or 0 and the text of what was returned; seconds; what is to be settled with it.

``UNTOLD`` in place of 1: nothing is stored of it.
"""

_decode_json: Any = msgspec.json.Decoder(tuple[list[Any], dict[str, Any], FollowUps | None]).decode
_runners: dict[str, Runner] = {}


def run(*message: Any) -> Ran:
    """Run a task on this thread, in a context of its own: what it sets there no other task sees.

    Args:
        message: The name of the task type, the id of the task, its headers, its body, content type and encoding.
    """
    try:
        return copy_context().run(_run, *message)
    except BaseException as error:
        if ends_the_run(sound(error)):
            raise
        raised = error
    # Threads and greenlets of Celery's pools lose what comes out of here, and hold the slot for ever.
    return unreported(as_failure(raised))


def _run(name: str, task_id: str, given: dict[str, Any], body: Any, content_type: str, encoding: str) -> Ran:
    runner = runner_of(name, given)
    if is_asked_for(given) and (dropped := held_back(runner, given)) is not None:
        return *dropped, None
    settlement, raised = _settlement(runner, given), None
    with settling(settlement):
        try:
            try:
                args, kwargs = _arguments(runner, given, body, content_type, encoding)
            except Exception as error:  # noqa: BLE001 - whatever they hold
                outcome = refuse(runner, given, error, read_follow_ups(body, content_type))
            else:
                outcome = runner.run(task_id, args, kwargs, given)
        except BaseException as error:  # noqa: BLE001 - of a hook, for example
            raised = error
        if raised is not None:
            outcome = broken_off(runner, given, raised, settlement)
    if settlement is None or _is_claimed(given):
        return *outcome, settlement
    return *carry_out(runner, outcome, settlement), None


async def run_async(
    job: Awaiting, name: str, task_id: str, given: dict[str, Any], body: Any, content_type: str, encoding: str
) -> Ran:
    """Run a task whose function is a coroutine function, on this event loop."""
    runner = runner_of(name, given)
    if is_asked_for(given) and (dropped := await asyncio.to_thread(held_back, runner, given)) is not None:
        return *dropped, None
    try:
        args, kwargs = _arguments(runner, given, body, content_type, encoding)
    except Exception as error:  # noqa: BLE001 - the same
        run = _refuse(runner, given, error, read_follow_ups(body, content_type))
    else:
        run = runner.run_async(task_id, args, kwargs, given, job)
    return await _to_its_end(job, run, runner, given, _settlement(runner, given))


async def _refuse(runner: Runner, given: dict[str, Any], error: Exception, follow_ups: Any) -> Outcome:
    return refuse(runner, given, error, follow_ups)


async def _to_its_end(
    job: Awaiting, run: Coroutine[Any, Any, Outcome], runner: Runner, given: dict[str, Any],
    settlement: Settlement | None,
) -> Ran:  # fmt: skip
    raised = None
    with settling(settlement):
        try:
            outcome = await run
        except Closed as closed:
            rest = closed.rest
            raise Closed(lambda: _to_its_end(job, rest(), runner, given, settlement)) from closed
        except BaseException as error:
            if issubclass(type(error), GeneratorExit) and not job.is_current():
                raise  # nobody runs this coroutine any more
            raised = error
        if raised is not None:
            outcome = broken_off(runner, given, raised, settlement)
    if settlement is None or _is_claimed(given):
        return *outcome, settlement
    return *await asyncio.to_thread(carry_out, runner, outcome, settlement), None


def _settlement(runner: Runner, given: dict[str, Any]) -> Settlement | None:
    """Return what shall collect the end of a run; ``None``: all goes out at once.

    So it is for a task that is acknowledged before it runs, and on another broker where Celery takes
    a stored success for one whose follow-ups were sent.
    """
    collects = runner.task.acks_late and (_is_claimed(given) or not runner.deduplicates)
    return Settlement() if collects else None


def _is_claimed(given: dict[str, Any]) -> bool:
    """Say whether the message is the engine's, so that one step settles what the run left."""
    return "lease" in (given.get("properties") or ())


def runner_of(name: str, given: dict[str, Any]) -> Runner:
    """Return what runs the tasks of a type in this process."""
    runner = _runners.get(name)
    if runner is None:
        app: Any = app_or_default()
        runner = _runners[name] = Runner(app.tasks[name], app, given.get("hostname") or gethostname())
    return runner


def forget_runners() -> None:
    """Make them anew: this is another process now, or the types changed."""
    _runners.clear()


os.register_at_fork(after_in_child=forget_runners)


def decode(app: Any, body: Any, content_type: Any, encoding: Any) -> tuple[Any, Any, dict[str, Any]]:
    """Return the args, kwargs and embedded signatures a message's body holds; without a type it is decoded already.

    Raises:
        Exception: It cannot be decoded, or is something else.
    """
    if not content_type:
        return _checked(body)
    if content_type == "application/json" and b"__type__" not in (raw := _raw(body)):
        # What kombu's decoder does for types JSON lacks takes most of its time.
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
        return _checked(json.loads(raw))  # what JSON does not know and Python writes all the same: NaN, lone surrogates


def _arguments(runner: Runner, given: dict[str, Any], body: Any, content_type: str, encoding: str) -> tuple[Any, Any]:
    """Decode the body into ``given``; return args and kwargs."""
    try:
        args, kwargs, embed = decode(runner.app, body, content_type, encoding)
    except BadHeader:
        raise
    except Exception as error:
        # In an error that can be stored: of JSON's own nothing but a name would be left.
        raise DecodeError(f"its body cannot be decoded: {error}") from error
    given.update(embed, args=args, kwargs=kwargs, hostname=runner.hostname, is_eager=False)
    return args, kwargs
