"""Child processes of a node."""

from __future__ import annotations

import os

import pytest

from taskapp.worker.pool import prefork

WORKS_ON = 7


@pytest.mark.parametrize(("is_orphan", "exit_code"), [(True, 0), (False, WORKS_ON)])
def test_a_child_whose_parent_ended_before_it_began_ends_too(monkeypatch, is_orphan: bool, exit_code: int) -> None:
    monkeypatch.setattr(prefork._Worker, "after_fork", lambda _: None)
    monkeypatch.setattr(prefork, "detach_inherited_sockets", lambda: None)
    worker = object.__new__(prefork.ChildWorker)
    worker.parent_pid = -1 if is_orphan else os.getpid()

    pid = os.fork()
    if not pid:
        worker.after_fork()
        os._exit(WORKS_ON)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == exit_code
