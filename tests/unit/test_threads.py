"""Threads whose jobs can be interrupted, left behind, or kept from beginning."""

from __future__ import annotations

import ctypes
import threading
from time import monotonic

import pytest

from taskapp.worker.pool.threads import Job, Threads
from tests.support import eventually


class Stop(BaseException):
    pass


def spin() -> str:
    deadline = monotonic() + 20
    while monotonic() < deadline:
        pass
    return "ran to its end"


def test_no_more_jobs_run_at_once_than_the_limit():
    pool, running, most, over, done = Threads(3), set(), [], threading.Event(), []

    def work():
        running.add(threading.get_ident())
        most.append(len(running))
        over.wait(10)
        running.discard(threading.get_ident())

    for _ in range(9):
        pool.submit(Job(work, done.append))
    eventually(lambda: len(running) == 3)
    over.set()
    eventually(lambda: len(done) == 9)
    assert max(most) == 3
    pool.close()


def test_an_interruption_ends_a_job_at_its_next_bytecode_and_no_other():
    pool, outcomes = Threads(1), []
    job = Job(spin, outcomes.append)
    pool.submit(job)
    eventually(lambda: job.thread_id is not None)
    assert job.interrupt(Stop)
    pool.submit(Job(lambda: "the next one", outcomes.append))
    eventually(lambda: len(outcomes) == 2)
    assert isinstance(outcomes[0], Stop)
    assert outcomes[1] == "the next one"
    assert not job.interrupt(Stop)
    pool.close()


def test_an_interruption_that_comes_too_late_hits_nobody():
    pool, outcomes = Threads(1), []
    for _ in range(200):
        job = Job(lambda: None, outcomes.append)
        pool.submit(job)
        while job.thread_id is None and not job.seconds:
            pass
        job.interrupt(Stop)
    eventually(lambda: len(outcomes) == 200)
    assert {type(outcome) for outcome in outcomes} <= {type(None), Stop}
    pool.submit(Job(lambda: "alive", outcomes.append))
    eventually(lambda: outcomes[-1] == "alive")
    pool.close()


def test_a_thread_that_hangs_is_replaced():
    pool, outcomes, hangs = Threads(1), [], threading.Event()
    job = Job(lambda: hangs.wait(20), outcomes.append)
    pool.submit(job)
    eventually(lambda: job.thread_id is not None)
    assert pool.abandon(job)
    assert pool.abandoned == 1
    pool.submit(Job(lambda: "elsewhere", outcomes.append))
    eventually(lambda: outcomes == ["elsewhere"])
    hangs.set()
    eventually(lambda: pool.abandoned == 0)
    assert not pool.abandon(job)
    pool.close()


def test_a_job_that_was_withdrawn_never_begins():
    pool, outcomes, over = Threads(1), [], threading.Event()
    pool.submit(Job(lambda: over.wait(10), outcomes.append))
    waiting = Job(lambda: "ran", outcomes.append)
    pool.submit(waiting)
    assert waiting.withdraw()
    over.set()
    pool.submit(Job(lambda: "the next one", outcomes.append))
    eventually(lambda: "the next one" in outcomes)
    assert "ran" not in outcomes
    pool.close()


def test_a_thread_goes_on_with_the_job_that_follows():
    pool, outcomes, following = Threads(1), [], []
    pool.following = lambda: following.pop() if following else None
    threads = []
    following += [Job(lambda: threads.append(threading.get_ident()), outcomes.append) for _ in range(5)]
    pool.submit(Job(lambda: threads.append(threading.get_ident()), outcomes.append))
    eventually(lambda: len(outcomes) == 6)
    assert len(set(threads)) == 1
    pool.close()


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, ValueError, Stop])
def test_what_is_raised_in_a_waiting_thread_costs_neither_thread_nor_job(error: type[BaseException]):
    pool, outcomes, threads = Threads(2), [], []
    over = threading.Barrier(3)
    for _ in range(2):
        pool.submit(Job(lambda: (threads.append(threading.get_ident()), over.wait(10)), outcomes.append))
    over.wait(10)
    eventually(lambda: len(outcomes) == 2)
    for late in range(3):
        for thread in threads:
            # Until it is seen, a thread that waits has it pending.
            assert ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(error)) == 1
        for number in range(4):
            pool.submit(Job(lambda number=number, late=late: (late, number), outcomes.append))
        eventually(lambda late=late: len(outcomes) == 2 + 4 * (late + 1))
    assert sorted(outcomes[2:]) == [(late, number) for late in range(3) for number in range(4)]
    assert {thread.ident for thread in threading.enumerate()} >= set(threads)
    pool.close()
