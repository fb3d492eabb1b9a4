"""Our worker under pytest-celery, which drives a broker, a result store and a worker as nodes."""

from __future__ import annotations

import pytest
from celery import chain, group
from pytest_celery import RESULT_TIMEOUT, CeleryTestSetup

pytestmark = pytest.mark.slow


def add(setup: CeleryTestSetup, *args, **options):
    return setup.app.signature("taskapp.add", args=args, queue="default", **options)


def test_the_worker_answers_remote_control_and_runs_a_task(celery_setup: CeleryTestSetup) -> None:
    assert celery_setup.ready(control=True, docker=True)

    assert add(celery_setup, 2, 3).apply_async().get(timeout=RESULT_TIMEOUT) == 5


def test_chain_group_and_chord(celery_setup: CeleryTestSetup) -> None:
    both = group(add(celery_setup, 1, 1), add(celery_setup, 2, 2)).apply_async()
    follow = chain(add(celery_setup, 1, 1), add(celery_setup, 10)).apply_async()

    assert both.get(timeout=RESULT_TIMEOUT) == [2, 4]
    assert follow.get(timeout=RESULT_TIMEOUT) == 12


def test_a_task_sent_while_no_worker_runs_waits_for_one(celery_setup: CeleryTestSetup) -> None:
    celery_setup.worker.kill()
    assert celery_setup.worker.container.status == "exited"

    later = add(celery_setup, 20, 1).apply_async()
    celery_setup.worker.restart()

    assert later.get(timeout=30) == 21


def test_the_worker_comes_back_after_its_broker_did(celery_setup: CeleryTestSetup) -> None:
    celery_setup.broker.restart()

    assert add(celery_setup, 30, 1).apply_async().get(timeout=60) == 31


def test_the_workers_log_names_the_task(celery_setup: CeleryTestSetup) -> None:
    result = add(celery_setup, 1, 2).apply_async()
    result.get(timeout=RESULT_TIMEOUT)

    celery_setup.worker.assert_log_exists(f"[taskapp.add {result.id} queue=default attempt=1]")
