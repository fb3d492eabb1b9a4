"""A node on gevent whose tasks leave greenlets that exit."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import pytest
from billiard.exceptions import TimeLimitExceeded
from celery import Celery

from tests.integration import leaves_greenlets
from tests.support import Process, eventually

StartWorker = Callable[..., Process]


@pytest.fixture
def node(worker: StartWorker) -> Process:
    return worker("-P", "gevent", TASKAPP_INCLUDE=leaves_greenlets.__name__)


@pytest.mark.usefixtures("app")
def test_a_greenlet_of_a_task_that_exits_ends_alone_and_is_logged(node: Process) -> None:
    cases = [(how, where) for how in ("SystemExit", "KeyboardInterrupt") for where in ("at once", "raw", "later")]
    pids = set()
    for count, case in enumerate(cases, 1):
        pids.add(leaves_greenlets.leave_one.delay(*case).get(timeout=20))
        eventually(lambda count=count: node.output().count("in a greenlet left behind by a task") == count or None)
        pids.add(leaves_greenlets.pid.delay().get(timeout=20))

    assert len(pids) == 1
    assert "SystemExit(3) in a greenlet" in node.output()


@pytest.mark.usefixtures("app")
def test_a_task_past_its_hard_limit_fails_with_celerys_error(node: Process) -> None:
    with pytest.raises(TimeLimitExceeded, match="1"):
        leaves_greenlets.waits.apply_async(time_limit=1).get(timeout=20)
    assert leaves_greenlets.pid.delay().get(timeout=20) == leaves_greenlets.pid.delay().get(timeout=20)
    assert node.returncode is None


@pytest.mark.parametrize("how", ["SIGTERM", "SIGINT", "SIGQUIT", "remote"])
def test_such_a_node_still_stops_when_it_is_told_to(app: Celery, node: Process, how: str) -> None:
    leaves_greenlets.leave_one.delay("SystemExit", "at once").get(timeout=20)
    if how == "remote":
        app.control.shutdown()
    else:
        os.kill(node.pid, getattr(signal, how))

    assert node.wait(20) == 0
