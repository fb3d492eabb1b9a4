"""Django's own tests of its task backends, run on ours."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import django
import pytest

from tests.support import RedisServer, clean_environment

ROOT = Path(__file__).parents[2]
KEPT_IN = ROOT / "build" / "upstream"
PINS = ROOT / "requirements" / "dev.txt"
TEXT = "the backport has another message"
DUMMY = "the dummy backend keeps its results in a list, which the test changes"
IMMEDIATE = "the immediate backend lacks what ours has"
DIFFERENCES = {
    "test_dummy_backend.DummyBackendTestCase.test_clear": DUMMY,
    "test_dummy_backend.DummyBackendTestCase.test_refresh_result": DUMMY,
    "test_dummy_backend.DummyBackendTestCase.test_refresh_result_async": DUMMY,
    "test_immediate_backend.ImmediateBackendTestCase.test_cannot_get_result": IMMEDIATE,
    "test_immediate_backend.ImmediateBackendTestCase.test_cannot_pass_run_after": IMMEDIATE,
    "test_immediate_backend.ImmediateBackendTestCase.test_cannot_refresh_result": IMMEDIATE,
    "test_immediate_backend.ImmediateBackendTestCase.test_catches_exception": (
        "with task_always_eager, SystemExit leaves the process, as in Celery; on a node it fails the task"
    ),
}
"""Those which fail on our backend, and why."""
OF_BACKPORT = {
    "test_custom_backend.CustomBackendTestCase.test_enqueue_async_task_on_non_async_backend": TEXT,
    "test_custom_backend.CustomBackendTestCase.test_no_enqueue": "Python 3.11 has another message",
    "test_dummy_backend.DummyBackendTestCase.test_validate_disallowed_async_task": TEXT,
    "test_tasks.TaskTestCase.test_pickle_task": "the backport's tasks cannot be pickled",
    "test_tasks.TaskTestCase.test_pickle_task_result": "the backport's tasks cannot be pickled",
    "test_tasks.TaskTestCase.test_run_after_in_decorator": TEXT,
    "test_tasks.TaskTestCase.test_unpickle_arbitrary_string": "the backport's tasks cannot be pickled",
    "test_tasks.TaskTestCase.test_unpickle_non_task_object": "the backport's tasks cannot be pickled",
}
"""Those which fail on the backport with its own backends as well, and why."""
SAMPLE = (
    "tasks.test_dummy_backend.DummyBackendTestCase.test_get_result",
    "tasks.test_immediate_backend.ImmediateBackendTestCase.test_enqueue_task",
    "tasks.test_immediate_backend.ImmediateBackendTestCase.test_enqueue_task_async",
    "tasks.test_immediate_backend.ImmediateBackendTestCase.test_complex_return_value",
    "tasks.test_tasks.TaskTestCase.test_get_incorrect_result",
    "tasks.test_tasks.TaskTestCase.test_using_run_after",
)
IS_BACKPORT = django.VERSION < (6, 0)


def source() -> Path:
    """Return the folder of Django 6's source distribution, of the pinned version, downloaded once."""
    found = re.search(r"^django==(6[.\d]+)", PINS.read_text(), re.MULTILINE)
    assert found is not None
    name = f"django-{found[1]}"
    KEPT_IN.mkdir(parents=True, exist_ok=True)
    with (KEPT_IN / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (KEPT_IN / name).exists():
            download(f"django=={found[1]}", name)
    return KEPT_IN / name


def download(requirement: str, name: str) -> None:
    with TemporaryDirectory(dir=KEPT_IN) as folder:
        argv = [
            sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
            "--no-binary", ":all:", "--no-build-isolation", "--ignore-requires-python", "-d", folder, requirement,
        ]  # fmt: skip
        done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
        archives = list(Path(folder).glob("*.tar.gz"))
        if done.returncode or not archives:
            pytest.skip(f"pip cannot download {requirement}: {(done.stderr.strip() or 'no archive').splitlines()[-1]}")
        with tarfile.open(archives[0]) as archive:
            archive.extractall(Path(folder, "unpacked"), filter="data")
        shutil.move(Path(folder, "unpacked", name), KEPT_IN / name)


def outcomes(redis: RedisServer, directory: Path, tests: Sequence[str] = ()) -> dict[str, str]:
    """Run their tests; return for each its error, empty if it passed."""
    shutil.copytree(source() / "tests" / "tasks", directory / "tasks")
    if IS_BACKPORT:
        for module in (directory / "tasks").glob("*.py"):
            module.write_text(module.read_text().replace("django.tasks", "django_tasks"))
    argv = [sys.executable, "-m", "tests.integration.django_suite", str(directory), redis.url, *tests]
    done = subprocess.run(
        argv, env=clean_environment(), cwd=ROOT, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_sample_of_django_s_own_tests_passes(redis_server: RedisServer, tmp_path: Path) -> None:
    assert outcomes(redis_server, tmp_path, SAMPLE) == dict.fromkeys(SAMPLE, "")


@pytest.mark.slow
def test_django_s_own_tests_pass_with_the_exceptions_that_are_listed(redis_server: RedisServer, tmp_path: Path) -> None:
    found = outcomes(redis_server, tmp_path)

    failed = {name.removeprefix("tasks."): error for name, error in found.items() if error}
    assert failed.keys() == {*DIFFERENCES, *(OF_BACKPORT if IS_BACKPORT else ())}, failed
    assert len(found) >= 80
