"""A process that is forked for a test is as one that is started: what it sees, what it says, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.preloaded import THOROUGH, Preloaded, fits
from tests.support import Node, clean_environment, eventually, run_python

SEEN = """
import json, os, signal, sys
print(json.dumps([sys.argv, sys.path[:2], os.getcwd(), dict(os.environ), __name__]))
print(json.dumps([os.getpgid(0) == os.getsid(0) == os.getpid(), sorted(os.listdir("/proc/self/fd"))[:3]]))
print(json.dumps([signal.getsignal(number) == signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGHUP)]))
OURS = ("taskapp.celery.", "taskapp.tasks.", "tests.")
print([name for name in sys.modules if f"{name}.".startswith(OURS)], file=sys.stderr)
sys.exit(3)
"""
VALUES = """
import importlib, json, os, sys
from pathlib import Path
values = {}
for path in sorted(Path("taskapp").glob("**/*.py")):
    name = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
    if path.name != "__main__.py" and not name.startswith("taskapp.django."):
        of_module = vars(importlib.import_module(name))
        for key, value in of_module.items():
            if type(value) in (bool, int, float, str, bytes, type(None)) and not key.startswith("__"):
                values[f"{name}.{key}"] = "pid" if value == os.getpid() else repr(value)
print(json.dumps(values))
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


def test_no_module_has_a_value_of_another_process(env: dict[str, str]) -> None:
    forked = run_python("-c", VALUES, env=env, check=True)
    new = subprocess.run([sys.executable, "-c", VALUES], env=env, capture_output=True, text=True, check=True)

    assert json.loads(forked.stdout) == json.loads(new.stdout)


@pytest.mark.parametrize("arguments", [("-m", "taskapp", "nonsense"), ("-m", "taskapp", "--version")])
def test_it_says_what_a_new_one_says(env: dict[str, str], arguments: tuple[str, ...]) -> None:
    forked = run_python(*arguments, env=env)
    new = subprocess.run([sys.executable, *arguments], env=env, capture_output=True, text=True)

    assert (forked.returncode, forked.stdout, forked.stderr) == (new.returncode, new.stdout, new.stderr)


ENDS = {
    "returns": "print('done')",
    "a number": "sys.exit(3)",
    "a large number": "sys.exit(259)",
    "a text": "sys.exit('bad')",
    "an error": "1 / 0",
    "ctrl-c": "raise KeyboardInterrupt",
    "a thread goes on": "threading.Timer(0.2, print, ['after']).start()",
    "something is left to do": "atexit.register(print, 'at exit'); sys.stdout.write('no line')",
}


@pytest.mark.parametrize("code", ENDS.values(), ids=ENDS)
def test_it_ends_as_a_new_one_does(env: dict[str, str], code: str) -> None:
    code = f"import atexit, sys, threading\n{code}"
    forked = run_python("-c", code, env=env)
    new = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)

    assert (forked.returncode, forked.stdout) == (new.returncode, new.stdout)
    assert forked.stderr.splitlines()[-1:] == new.stderr.splitlines()[-1:]


def test_where_every_test_runs_it_imports_taskapp_itself(
    env: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(THOROUGH, "1")
    server = Preloaded()
    code = "import sys; print([name for name in sys.modules if name.startswith(('taskapp', 'tests'))])"
    with (tmp_path / "out").open("w") as out:
        process = server.start([sys.executable, "-c", code], env, tmp_path, out.fileno(), out.fileno())

    assert process.wait(20) == 0
    assert (tmp_path / "out").read_text() == "[]\n"


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
