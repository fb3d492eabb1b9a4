"""Task types that raise what would end a process: in the function, in each hook, in each receiver, on the loop."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import redis
from celery import shared_task, signals
from celery.worker.control import inspect_command
from celery.worker.request import Request

from taskapp.celery import app

client = redis.Redis.from_url(os.environ.get("TASKAPP_BROKER_URL", "redis://127.0.0.1:1"), decode_responses=True)


class Odd(BaseException):
    """An error of a library of its own kind."""


ERRORS: dict[str, Callable[[], BaseException]] = {
    "SystemExit": lambda: SystemExit(4),
    "KeyboardInterrupt": KeyboardInterrupt,
    "GeneratorExit": lambda: GeneratorExit("closed"),
    "CancelledError": asyncio.CancelledError,
    "Odd": lambda: Odd("odd"),
    "group": lambda: BaseExceptionGroup("several", [SystemExit(4), ValueError("other")]),
}


class StrExits(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)

    __repr__ = __str__


class StrCloses(StrExits):
    def __str__(self) -> str:
        raise GeneratorExit

    __repr__ = __str__


class ReprRaisesItself(BaseException):
    def __repr__(self) -> str:
        raise self


class ExitRaisesItself(SystemExit):
    def __str__(self) -> str:
        raise self

    __repr__ = __str__


class MemoryWithoutText(MemoryError):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class NoTraceback(Exception):
    __traceback__ = property(lambda self: 1 / 0)


class NoClass(Exception):
    __class__ = property(lambda self: 1 / 0)


class NothingReadable(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise KeyboardInterrupt(name)


class AttributesExit(Exception):
    def __getattr__(self, name: str) -> Any:
        raise SystemExit(name)


class ReprMisses(Exception):
    def __repr__(self) -> str:
        return self.missing


class NotPicklable(Exception):
    def __reduce__(self) -> Any:
        raise GeneratorExit


class Long(Exception):
    def __str__(self) -> str:
        client.incr("read")
        return "x" * (17 << 20)


class Slow(Exception):
    def __str__(self) -> str:
        client.incr("read")
        time.sleep(0.6)
        return "slow"


class LongRepr(Exception):
    def __repr__(self) -> str:
        client.incr("read")
        return "x" * (17 << 20)


class SlowArgument:
    def __repr__(self) -> str:
        client.incr("read")
        time.sleep(0.6)
        return "slow"


HEAVY: dict[str, Callable[[], BaseException]] = {
    "Long": Long, "Slow": Slow, "LongRepr": LongRepr, "of a slow argument": lambda: ValueError(SlowArgument()),
}  # fmt: skip
"""Errors whose text is too much to be made more than once."""


def _from_broken() -> Exception:
    error = ValueError("from a broken one")
    error.__cause__ = NoTraceback()
    return error


BROKEN: dict[str, Callable[[], BaseException]] = {
    one.__name__: one for one in (
        StrExits, StrCloses, ReprRaisesItself, ExitRaisesItself, MemoryWithoutText, NoTraceback, NoClass,
        AttributesExit, NothingReadable, ReprMisses, NotPicklable, MemoryError,
    )
} | {
    "from a broken one": _from_broken,
    "group of broken ones": lambda: BaseExceptionGroup("several", [NoTraceback(), SystemExit(3)]),
}  # fmt: skip
"""Errors that cannot be read, or that Celery's pools let nobody see."""
HOOKS = ("before_start", "on_success", "on_failure", "on_retry", "after_return")
RECEIVERS = ("task_received", "task_prerun", "task_postrun", "task_success", "task_failure", "task_retry")


FORKS = "forks"


def act(where: str, asked: Any) -> None:
    """Raise what was asked for, if it was asked for here; or fork, and go on in both processes."""
    place, error = asked
    if place == where and error == FORKS:
        _fork()
    elif place == where:
        raise (ERRORS | BROKEN | HEAVY)[error]()


def _fork() -> bool:
    """Fork; return whether this is the child."""
    pid = os.fork()
    if pid == 0:
        # The connection is the parent's, too.
        client.connection_pool.reset()
    else:
        client.rpush("forked", pid)
    return pid == 0


class Exits(app.Task):
    """Its hooks raise what the call's first argument says."""

    abstract = True

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        act("before_start", args)

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        act("on_success", args)

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        act("on_failure", args)

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        act("on_retry", args)

    def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        act("after_return", args)


class ExitsAsync(app.Task):
    """The same with coroutine functions for hooks."""

    abstract = True

    async def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        await asyncio.sleep(0.001)
        act("before_start", args)

    async def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        await asyncio.sleep(0.001)
        act("on_success", args)

    async def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        await asyncio.sleep(0.001)
        act("on_failure", args)

    async def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        await asyncio.sleep(0.001)
        act("on_retry", args)

    async def after_return(self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        await asyncio.sleep(0.001)
        act("after_return", args)


def _body(task: Any, place: str, error: str) -> str:
    client.rpush(f"ran:{task.request.id}", task.request.retries)
    act("function", (place, error))
    if place in ("on_failure", "task_failure"):
        raise ValueError("its own")
    if place in ("on_retry", "task_retry") and task.request.retries == 0:
        raise task.retry(countdown=0.01, max_retries=3)
    return "done"


@app.task(base=Exits, bind=True, name="exits.def")
def exits(self: Any, place: str, error: str) -> str:
    return _body(self, place, error)


@app.task(base=ExitsAsync, bind=True, name="exits.async_hooks")
def exits_with_async_hooks(self: Any, place: str, error: str) -> str:
    return _body(self, place, error)


@app.task(base=ExitsAsync, bind=True, name="exits.async")
async def exits_async(self: Any, place: str, error: str) -> str:
    await asyncio.sleep(0.001)
    return _body(self, place, error)


@app.task(base=Exits, bind=True, name="exits.child", cpu_bound=True)
def exits_in_child(self: Any, place: str, error: str) -> str:
    return _body(self, place, error)


CALLBACKS = ("on_accepted", "on_failure", "on_timeout")
"""Methods of requests that pools call."""


class ExitsInRequest(Request):
    """Its methods raise what the call's first argument says."""

    def on_accepted(self, pid: int, time_accepted: float) -> Any:
        act("on_accepted", self.args)
        return super().on_accepted(pid, time_accepted)

    def on_failure(self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False) -> Any:
        act("on_failure", self.args)
        return super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_timeout(self, soft: bool, timeout: float) -> Any:
        act("on_timeout", self.args)
        return super().on_timeout(soft, timeout)

    def info(self, safe: bool = False) -> Any:
        act("info", self.args)
        return super().info(safe)


class WithRequest(app.Task):
    abstract = True
    Request = ExitsInRequest


def _body_of_request(place: str) -> str:
    if place == "on_failure":
        raise ValueError("its own")
    if place in ("on_timeout", "info"):
        time.sleep(1.0)
    return "done"


@app.task(base=WithRequest, name="requests.def", time_limit=2.0)
def exits_in_request(place: str, error: str) -> str:
    time.sleep(1.5 if place == "on_timeout" else 0)
    return _body_of_request(place)


@app.task(base=WithRequest, name="requests.child", time_limit=2.0, cpu_bound=True)
def exits_in_request_of_child(place: str, error: str) -> str:
    time.sleep(1.5 if place == "on_timeout" else 0)
    return _body_of_request(place)


@inspect_command()
def exit_in_command(state: Any, error: str = "") -> None:
    raise ERRORS[error]()


def _receive(name: str) -> Callable[..., None]:
    def receive(sender: Any = None, request: Any = None, **_: Any) -> None:
        if name == "task_received":
            arguments = request.args if request.name.startswith("exits.") else ("", "")
        else:
            arguments = sender.request.args if sender.name.startswith("exits.") else ("", "")
        act(name, arguments)

    return receive


for _name in RECEIVERS:
    getattr(signals, _name).connect(_receive(_name), weak=False)


@shared_task(name="fails", bind=True)
def fail(self: Any) -> None:
    client.rpush(f"ran:{self.request.id}", 0)
    raise ValueError("its own")


@shared_task(name="fails.child", bind=True, cpu_bound=True)
def fail_in_child(self: Any) -> None:
    client.rpush(f"ran:{self.request.id}", 0)
    raise ValueError("its own")


@shared_task(name="errback.def")
def tell(request: Any, exc: Any, traceback: Any, error: str) -> None:
    client.rpush(f"told:{request.id}", repr(exc))
    raise ERRORS[error]()


@shared_task(name="errback.async")
async def tell_async(request: Any, exc: Any, traceback: Any, error: str) -> None:
    client.rpush(f"told:{request.id}", repr(exc))
    raise ERRORS[error]()


# --- what a coroutine leaves on the loop, and forks ----------------------------------------------------------


async def _leave(error: str) -> None:
    await asyncio.sleep(0.01)
    raise ERRORS[error]()


@shared_task(name="leaves.task")
async def leave_a_task(error: str) -> str:
    child = asyncio.create_task(_leave(error))
    await asyncio.sleep(0.1)
    return "done" if child.done() else "not yet"


@shared_task(name="leaves.callback")
async def leave_a_callback(error: str) -> str:
    def call() -> None:
        raise ERRORS[error]()

    asyncio.get_running_loop().call_soon(call)
    await asyncio.sleep(0.1)
    return "done"


@shared_task(name="leaves.gather")
async def gather(error: str) -> str:
    await asyncio.gather(_leave(error), asyncio.sleep(0.05))
    return "done"


@shared_task(name="leaves.group")
async def group(error: str) -> str:
    async with asyncio.TaskGroup() as children:
        children.create_task(_leave(error))
        children.create_task(asyncio.sleep(0.05))
    return "done"


@shared_task(name="neighbour", bind=True)
async def neighbour(self: Any) -> str:
    client.rpush(f"ran:{self.request.id}", 0)
    await asyncio.sleep(1.0)
    return "done"


def _run_and_fork(task: Any) -> bool:
    client.rpush(f"ran:{task.request.id}", 0)
    return _fork()


def _end_of_child(how: str) -> str:
    if how == "exits":
        sys.exit(3)
    if how == "raises":
        raise RuntimeError("in the child")
    return "child"


@shared_task(name="forks.def", bind=True)
def fork(self: Any, how: str) -> str:
    return _end_of_child(how) if _run_and_fork(self) else "parent"


@shared_task(name="forks.async", bind=True)
async def fork_async(self: Any, how: str) -> str:
    future = asyncio.get_running_loop().create_future()
    if _run_and_fork(self):
        if how == "waits":
            await asyncio.sleep(0)
            client.rpush("ran in a child", 1)
        if how == "waits for ever":
            await future
        return _end_of_child(how)
    await asyncio.sleep(0.1)
    return "parent"


@shared_task(name="forks.child", bind=True, cpu_bound=True)
def fork_in_child(self: Any, how: str) -> str:
    return _end_of_child(how) if _run_and_fork(self) else "parent"


def _rewrite(request: Any) -> None:
    request.id = request.group = object()
    request.errbacks = request.chord = 5
    raise ValueError("its own")


@shared_task(name="rewrites.def", bind=True)
def rewrite_request(self: Any) -> None:
    _rewrite(self.request)


@shared_task(name="rewrites.async", bind=True)
async def rewrite_request_async(self: Any) -> None:
    _rewrite(self.request)


@shared_task(name="rewrites.child", bind=True, cpu_bound=True)
def rewrite_request_in_child(self: Any) -> None:
    _rewrite(self.request)


class Unencodable:
    """A result whose encoding raises what would end more than the run."""

    def __json__(self) -> Any:
        raise GeneratorExit


@shared_task(name="returns.unencodable")
def return_unencodable() -> Any:
    return Unencodable()


@shared_task(name="returns.unencodable.early", acks_late=False)
def return_unencodable_early() -> Any:
    return Unencodable()


@shared_task(name="ends.early", acks_late=False)
def end_early() -> str:
    return "done"
