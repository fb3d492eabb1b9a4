"""Background threads, and what belongs to one process."""

from __future__ import annotations

import ast
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from taskapp import background
from taskapp.background import (
    LazyThread,
    PerProcess,
    emptied_in_child,
    in_child,
    start_native_thread,
    start_thread,
    this_process,
)
from tests.private_names import sources
from tests.support import clean_environment

SECONDS = 30.0


@pytest.fixture(autouse=True)
def hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers nothing that outlives a test."""
    monkeypatch.setattr(background, "_hooks", list(background._hooks))


def in_a_child(look: Callable[[], bool]) -> bool:
    """Return what ``look`` returns in a forked process."""
    child = os.fork()
    if not child:
        try:
            os._exit(0 if look() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_thread_is_a_daemon_with_a_name_and_gets_its_arguments() -> None:
    seen: list[Any] = []

    thread = start_thread(seen.append, 1, name="writes")
    thread.join(SECONDS)

    assert (seen, thread.name, thread.daemon) == ([1], "taskapp-writes", True)


class Unreadable(Exception):
    def __repr__(self) -> str:
        raise RuntimeError

    __str__ = __repr__


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), GeneratorExit(), Unreadable()], ids=type)
@pytest.mark.parametrize("is_native", [False, True], ids=["thread", "native"])
def test_what_ends_a_thread_is_logged_with_its_name(
    error: BaseException, is_native: bool, thread_errors: list[Any]
) -> None:
    def fail() -> None:
        raise error

    if is_native:
        start_native_thread(fail, name="fails")
    else:
        start_thread(fail, name="fails")
    wait_until(lambda: bool(thread_errors))
    (record,) = thread_errors
    thread_errors.clear()

    assert record.getMessage() == "the thread taskapp-fails ended with an error"
    assert record.exc_info
    assert record.levelname == "CRITICAL"


def test_a_thread_may_exit(thread_errors: list[Any]) -> None:
    start_thread(sys.exit, 1, name="exits").join(SECONDS)

    assert not thread_errors


def wait_until(is_so: Callable[[], bool]) -> None:
    event = threading.Event()
    for _ in range(int(SECONDS / 0.01)):
        if is_so():
            return
        event.wait(0.01)
    raise TimeoutError


def test_a_lazy_thread_starts_once_whoever_asks_and_once_more_in_a_child() -> None:
    started: list[int] = []
    lazy = LazyThread(lambda: started.append(os.getpid()), "lazy")
    assert not lazy.is_started

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda _: lazy.start(), range(64)))
    wait_until(lambda: started == [os.getpid()])

    def starts_anew() -> bool:
        if lazy.is_started:
            return False
        lazy.start()
        wait_until(lambda: started[-1] == os.getpid())
        return len(started) == 2

    assert in_a_child(starts_anew)
    assert lazy.is_started
    assert len(started) == 1


def test_a_process_makes_its_value_once_and_its_child_another() -> None:
    made: list[int] = []
    value = PerProcess(lambda: made.append(os.getpid()) or os.getpid())
    assert value.value is None

    with ThreadPoolExecutor(16) as threads:
        assert {*threads.map(lambda _: value(), range(64))} == {os.getpid()}

    assert made == [value.value] == [os.getpid()]
    assert in_a_child(lambda: value.value is None and value() == os.getpid() and len(made) == 2)
    assert value() == os.getpid()


def test_a_child_waits_for_no_lock_that_a_thread_of_its_parent_holds() -> None:
    is_making, may_end = threading.Event(), threading.Event()

    def make() -> int:
        is_making.set()
        may_end.wait(SECONDS)
        return os.getpid()

    value = PerProcess(make)
    maker = start_thread(value, name="makes")
    assert is_making.wait(SECONDS)

    def makes_its_own() -> bool:
        may_end.set()
        return value() == os.getpid()

    try:
        assert in_a_child(makes_its_own)
    finally:
        may_end.set()
        maker.join(SECONDS)


def test_containers_are_empty_in_a_child_alone() -> None:
    names, ids = emptied_in_child({"a": 1}), emptied_in_child([1])

    assert in_a_child(lambda: not names and not ids)
    assert (names, ids) == ({"a": 1}, [1])


def test_each_process_is_another() -> None:
    before = this_process()

    assert in_a_child(lambda: this_process() is not before and this_process() is this_process())
    assert this_process() is before


def test_one_that_fails_keeps_no_other_from_being_called() -> None:
    called: list[str] = []
    in_child(lambda: 1 / 0)
    in_child(lambda: called.append("next"))

    assert in_a_child(lambda: called == ["next"])


def test_an_owner_is_passed_and_not_kept() -> None:
    class Owner:
        is_child = False

        def leave(self) -> None:
            self.is_child = True

    gc.collect()  # owners of earlier tests
    number = len(background._hooks)
    owner, other = Owner(), Owner()
    in_child(Owner.leave, owner=owner)
    in_child(Owner.leave, owner=other)
    del other
    gc.collect()

    assert len(background._hooks) == number + 1
    assert in_a_child(lambda: owner.is_child)
    assert not owner.is_child


GREEN = """
from gevent import monkey; monkey.patch_all()
import threading, time
from taskapp.background import start_native_thread, start_thread
import gevent, _thread
ident = monkey.get_original("_thread", "get_ident")
seen = {}
start_native_thread(lambda: seen.update(native=ident()), name="native")
start_thread(lambda: seen.update(green=ident()), name="green").join()
while "native" not in seen:
    time.sleep(0.01)
assert seen["green"] == ident() != seen["native"], seen
"""


def test_on_gevent_a_native_thread_is_a_real_one() -> None:
    done = subprocess.run([sys.executable, "-c", GREEN], capture_output=True, text=True, env=clean_environment())

    assert done.returncode == 0, done.stderr


def test_nothing_else_starts_threads_or_hooks_into_forks() -> None:
    found = [
        f"{path}:{node.lineno}"
        for path, tree in sources()
        if path != "background.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func).rpartition(".")[2] in ("Thread", "Timer", "start_new_thread", "register_at_fork")
    ]

    assert found == [], "use taskapp/background.py"
