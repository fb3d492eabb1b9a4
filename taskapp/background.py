"""Background threads, and values that belong to one process: neither is inherited by a forked child.

Every thread of ours starts here, except those of executors, and whatever a fork has to change is registered here.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from taskapp.errors.wording import sound

logger = logging.getLogger(__name__)

Value = TypeVar("Value")
Owner = TypeVar("Owner")


# --- threads --------------------------------------------------------------------------------------


def start_thread(run: Callable[..., Any], *args: Any, name: str) -> threading.Thread:
    """Start a daemon thread that calls ``run``; on gevent it is a greenlet.

    An error that ``run`` raises ends the thread and is logged with its name: nothing restarts it.

    Args:
        run: Runs until the process ends, or until its work is done.
        args: Passed to ``run``.
        name: Shown after ``taskapp-`` in debuggers and errors.
    """
    name = f"taskapp-{name}"
    thread = threading.Thread(target=_run, args=(name, run, args), name=name, daemon=True)
    thread.start()
    return thread


def start_native_thread(run: Callable[[], Any], *, name: str) -> None:
    """Start a real daemon thread, even if gevent has replaced threads with greenlets; errors as in ``start_thread``."""
    start: Callable[..., Any]
    if "gevent.monkey" in sys.modules:
        start = sys.modules["gevent.monkey"].get_original("_thread", "start_new_thread")
    else:
        from _thread import start_new_thread as start
    start(_run, (f"taskapp-{name}", run, ()))


def _run(name: str, run: Callable[..., Any], args: tuple[Any, ...]) -> None:
    try:
        run(*args)
    except SystemExit:  # ends a thread, as in threading
        pass
    except BaseException as error:
        logger.critical("the thread %s ended with an error", name, exc_info=sound(error))


class LazyThread:
    """A daemon thread that starts with the first call of ``start``, and once in each process.

    Args:
        run: See ``start_thread``.
        name: The same.
    """

    __slots__ = ("__weakref__", "_lock", "_name", "_run", "is_started")

    def __init__(self, run: Callable[[], Any], name: str) -> None:
        self._run, self._name = run, name
        self._forget()
        in_child(LazyThread._forget, owner=self)

    def _forget(self) -> None:
        self._lock = threading.Lock()
        self.is_started = False

    def start(self) -> None:
        """Start the thread, if this process has not started it. Any thread may call it."""
        if self.is_started:
            return
        with self._lock:
            if not self.is_started:
                self.is_started = True
                start_thread(self._run, name=self._name)


# --- processes ------------------------------------------------------------------------------------


_process = object()
_hooks: list[Callable[[], Any]] = []


def this_process() -> object:
    """Return an object that stands for this process: another one in each forked child."""
    return _process


def in_child(call: Callable[..., Any], *, owner: Any = None) -> None:
    """Call ``call`` in each process that is forked from this one.

    Args:
        call: Must not wait: threads of the parent may have held any lock. What it raises is logged.
        owner: If given, passed to ``call``, and only as long as it exists; it is not kept alive.
    """
    if owner is None:
        _hooks.append(call)
        return
    # A list operation is atomic: a fork on another thread finds the hook or does not.
    reference = weakref.ref(owner, lambda _: _hooks.remove(hook))
    hook = partial(_call_with_owner, call, reference)
    _hooks.append(hook)


def _call_with_owner(call: Callable[[Any], Any], reference: weakref.ref[Any]) -> None:
    if (owner := reference()) is not None:
        call(owner)


def _after_fork() -> None:
    global _process
    _process = object()
    for hook in _hooks:
        try:
            hook()
        except Exception:
            logger.exception("a forked process could not release what belongs to its parent")


os.register_at_fork(after_in_child=_after_fork)


def around_forks(before: Callable[[], Any], in_parent: Callable[[], Any]) -> None:
    """Call ``before`` before each fork of this process and ``in_parent`` after it, both in this process."""
    os.register_at_fork(before=before, after_in_parent=in_parent)


def emptied_in_child(container: Owner) -> Owner:
    """Return ``container``, a list or dict of this module's, which is empty in each forked child."""
    clear: Callable[[], Any] = container.clear  # type: ignore[attr-defined]  # what all of them have
    in_child(clear)
    return container


class PerProcess(Generic[Value]):
    """A value that each process makes for itself at its first use; all threads get the same one.

    Args:
        make: Makes the value; called once in each process.
    """

    __slots__ = ("__weakref__", "_lock", "_make", "value")

    def __init__(self, make: Callable[[], Value]) -> None:
        self._make = make
        self.value: Value | None = None
        """The value, or ``None`` if this process has not made one."""
        self._forget()
        in_child(PerProcess._forget, owner=self)

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self.value = None

    def __call__(self) -> Value:
        """Return the value, making it if necessary."""
        if (value := self.value) is not None:
            return value
        with self._lock:
            if self.value is None:
                self.value = self._make()
            return self.value
