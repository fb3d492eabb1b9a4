"""Finds out who sent a stop signal to a node or a pool child, and restores signal handlers that a task has changed.

Python's handlers do not learn the sender. With ``SA_SIGINFO``, the kernel writes it onto the stack of the handler.
This module provides that stack (``sigaltstack``) and reads it afterwards; Python's own handler runs on it as usual.
If the position on the stack cannot be determined at startup (on systems other than 64-bit Linux), the sender is
unknown.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import struct
import sys
import threading
from _signal import getsignal as handler_of  # type: ignore[import-not-found]  # signal's own makes an enum: ten times slower
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any

from celery.utils.log import get_logger

from taskapp.background import this_process
from taskapp.worker.process import first_process

logger = get_logger(__name__)

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
IGNORED = (signal.SIGPIPE, signal.SIGXFSZ)
"""Signals that Python ignores, so that the call fails instead; the system's default action ends the process."""
KEPT = (*STOPPING, signal.SIGCHLD, *IGNORED)
"""Signals whose handlers are restored after a task has changed them."""
STACK_BYTES = 256 * 1024
SA_SIGINFO, SA_ONSTACK = 0x4, 0x08000000
SI_QUEUE, SI_TKILL = -1, -6
_INFO = struct.Struct("=iiiiii")
"""The head of Linux' ``siginfo_t`` on 64 bits: signal, errno, code, padding, sender's process id, sender's user id."""
_VALUE = struct.Struct("=i")
"""Follows the head if the signal was queued with a value."""
FARTHEST_ANCESTOR = 64


class _Stack(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t)]


class _Action(ctypes.Structure):
    _fields_ = [
        ("handler", ctypes.c_void_p), ("mask", ctypes.c_ubyte * 128), ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    ]  # fmt: skip


class StopSignals:
    """The stop-signal handlers of this process; used by its main thread.

    Args:
        is_heard: Called with the sender of each stop signal: its process id, 0 for the kernel or a process outside
            this PID namespace, ``None`` if unknown. Returns whether to call the original handler.
    """

    def __init__(self, is_heard: Callable[[int | None], bool]) -> None:
        self._is_heard = is_heard
        self._handlers: dict[signal.Signals, Any] = {}
        self._stopping: tuple[tuple[int, Any], ...] = ()
        """Number and handler of each stop signal."""
        self._process: object = None
        self._offset: int | None = None
        """Position on the stack where the kernel writes the sender of a signal; ``None`` if unknown."""

    def watch(self) -> None:
        """Remember the current handlers, and pass the senders of stop signals to ``is_heard`` from now on.

        Does nothing outside the main thread.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        self._process = this_process()
        for number in STOPPING:
            if callable(handler := signal.getsignal(number)):
                signal.signal(number, self._with_sender(handler))
        for number in IGNORED:
            if signal.getsignal(number) == signal.SIG_DFL:
                signal.signal(number, signal.SIG_IGN)
                logger.warning("a module had reset %s to its default action; ignoring the signal again", number.name)
        self._handlers = {number: signal.getsignal(number) for number in KEPT}
        self._stopping = tuple((int(number), handler_of(number)) for number in STOPPING)
        if sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64") and sys.maxsize > 2**32:
            self._offset = _calibrate()
            self._ask_for_senders()

    def mend_stopping(self) -> None:
        """Restore the handlers if a task has changed one that stops the node; as cheap as it can be.

        Called after each coroutine: only code on the main thread can change handlers.
        """
        for number, handler in self._stopping:
            if handler_of(number) is not handler:
                self.mend()
                return

    def mend(self) -> None:
        """Restore the handlers that a task has changed."""
        if this_process() is not self._process:
            return
        changed = [number for number, handler in self._handlers.items() if signal.getsignal(number) != handler]
        for number in changed:
            if self._handlers[number] is not None:
                signal.signal(number, self._handlers[number])
                logger.warning("a task had changed the handler of %s; the node has restored its own", number.name)
        if changed:
            self._ask_for_senders()

    def _with_sender(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(handler)
        def handle(*args: Any) -> None:
            try:
                if not self._is_heard(self._sender()):
                    return
            except Exception:  # stopping matters more than knowing the sender
                logger.exception("could not determine the sender of a stop signal")
            # Celery's handler prints to stdout, which may be closed; by then its work is done.
            with suppress(OSError):
                handler(*args)

        return handle

    def _sender(self) -> int | None:
        if self._offset is None or this_process() is not self._process:
            return None
        number, error, code, _, pid, _ = _INFO.unpack_from(_stack, self._offset)
        if code == SI_QUEUE and pid == os.getppid() and first_process.is_passed_on:
            (pid,) = _VALUE.unpack_from(_stack, self._offset + _INFO.size)
        ctypes.memset(ctypes.addressof(_stack) + self._offset, 0, _INFO.size)
        return pid if number in STOPPING and error == 0 and pid >= 0 else None

    def _ask_for_senders(self) -> None:
        for number in STOPPING:
            _ask_for_sender(number)


def obey_only(parent: int) -> None:
    """Make this pool child ignore stop signals except from its ``parent``, itself or its own descendants.

    A stop signal sent to a whole process group is meant for the node, which decides how long its children may continue.
    If the sender is unknown, any stop signal ends the child.
    """
    StopSignals(lambda sender: sender is None or sender == parent or _is_ours(sender)).watch()


def _is_ours(sender: int) -> bool:
    return sender > 0 and child_of_ours(sender) is not None


_stack = ctypes.create_string_buffer(STACK_BYTES)
"""The stack for signal handlers on the main thread; the kernel writes to it while the process lives."""


def _ask_for_sender(number: signal.Signals) -> None:
    """Make the kernel report the sender of signal ``number``, if that has a handler."""
    libc, action = ctypes.CDLL(None), _Action()
    if libc.sigaction(int(number), None, ctypes.byref(action)) == 0 and (action.handler or 0) > 1:
        action.flags |= SA_SIGINFO | SA_ONSTACK
        libc.sigaction(int(number), ctypes.byref(action), None)


def _calibrate() -> int | None:
    """Return the position of the sender on the stack, found with a harmless signal to this process; or ``None``."""
    stack = _Stack(ctypes.addressof(_stack), 0, STACK_BYTES)
    if ctypes.CDLL(None).sigaltstack(ctypes.byref(stack), None) != 0:
        return None
    before = signal.signal(signal.SIGURG, lambda *_: None)
    try:
        _ask_for_sender(signal.SIGURG)
        # Goes to the current thread, which ``get_ident`` would not identify under gevent.
        signal.raise_signal(signal.SIGURG)
        expected = _INFO.pack(signal.SIGURG, 0, SI_TKILL, 0, os.getpid(), os.getuid())
        offset = _stack.raw.rfind(expected)
    finally:
        signal.signal(signal.SIGURG, before if before is not None else signal.SIG_DFL)
    return offset if offset >= 0 else None


def child_of_ours(pid: int) -> int | None:
    """Return the child of this process that ``pid`` is or descends from; ``pid`` itself if it is this process.

    ``None`` if the process does not descend from this one, or has ended.
    """
    me, child = os.getpid(), pid
    for _ in range(FARTHEST_ANCESTOR):
        if pid == me:
            return child
        if pid <= 1:
            return None
        child, pid = pid, _parent_of(pid)
    return None


def _parent_of(pid: int) -> int:
    with suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - in a handler
        return int(file.read().rpartition(b")")[2].split()[1])
    return 0
