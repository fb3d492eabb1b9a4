"""A process that is forked for a test is as one that is started: what it sees, what it says, how it ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.preloaded import fits
from tests.support import Node, clean_environment, eventually, run_python

SEEN = """
import json, os, signal, sys
print(json.dumps([sys.argv, sys.path[:2], os.getcwd(), dict(os.environ), __name__]))
print(json.dumps([os.getpgid(0) == os.getsid(0) == os.getpid(), sorted(os.listdir("/proc/self/fd"))[:3]]))
print(json.dumps([signal.getsignal(number) == signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGHUP)]))
print([name for name in sys.modules if name.startswith(("taskapp", "tests"))], file=sys.stderr)
sys.exit(3)
"""


@pytest.fixture
def env() -> dict[str, str]:
    return clean_environment(PYTHONPATH=str(Path.cwd()), OF_THIS_TEST="ü")


def test_it_sees_what_a_new_one_sees(env: dict[str, str], tmp_path: Path) -> None:
    forked = run_python("-c", SEEN, "one", env=env, cwd=tmp_path)
    new = subprocess.run(
        [sys.executable, "-c", SEEN, "one"],
        env=env,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        start_new_session=True,
    )

    assert fits(forked.args, env)
    assert (forked.returncode, forked.stdout, forked.stderr) == (3, new.stdout, new.stderr) == (3, new.stdout, "[]\n")


@pytest.mark.parametrize("arguments", [("-m", "taskapp", "nonsense"), ("-m", "taskapp", "--version")])
def test_it_says_what_a_new_one_says(env: dict[str, str], arguments: tuple[str, ...]) -> None:
    forked = run_python(*arguments, env=env)
    new = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True)

    assert (forked.returncode, forked.stdout, forked.stderr) == (new.returncode, new.stdout, new.stderr)


def test_it_ends_by_a_signal_as_a_new_one_does(env: dict[str, str], tmp_path: Path) -> None:
    node = Node([sys.executable, "-c", "import time; print('here', flush=True); time.sleep(60)"], tmp_path / "log", env)
    eventually(lambda: "here" in node.output())
    assert node.returncode is None

    node.kill()

    assert node.returncode == -9


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (("-m", "celery", "-A", "taskapp", "worker", "-P", "gevent"), {}),
        (("-m", "celery", "-A", "taskapp", "worker"), {"LD_PRELOAD": "clock.so"}),
        (("-m", "celery", "-A", "taskapp", "worker"), {"TZ": "Asia/Tokyo"}),
        (("-m", "tests.faults"), {}),
    ],
)
def test_what_differs_before_the_fork_is_started_anew(
    env: dict[str, str], arguments: tuple[str, ...], variables: dict[str, str]
) -> None:
    assert not fits([sys.executable, *arguments], {**env, **variables})


def test_a_process_with_a_site_of_its_own_is_started_anew(env: dict[str, str], tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "celery", "-A", "taskapp", "worker"]
    assert fits(argv, {**env, "PYTHONPATH": str(tmp_path)})

    (tmp_path / "sitecustomize.py").touch()

    assert not fits(argv, {**env, "PYTHONPATH": str(tmp_path)})
