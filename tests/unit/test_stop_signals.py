"""Who sent a signal to stop, as the kernel tells it; and that handlers a task has changed are put back."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import textwrap

import pytest

PROGRAM = """
import os, signal, subprocess, sys, threading, time
from taskapp.worker.process.stop_signals import StopSignals, child_of_ours

heard = []
signals = StopSignals(lambda sender: told.append((sender, sender and child_of_ours(sender))) or True)
told = []

def handle(*_):
    heard.append((*told.pop(), signals._sender()))

for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, handle)
before = signal.getsignal(signal.SIGURG)
signals.watch()
assert signal.getsignal(signal.SIGURG) == before

def last():
    deadline = time.monotonic() + 10
    while not heard and time.monotonic() < deadline:
        time.sleep(0.01)
    return heard.pop()

def on_thread(call):
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()

me = os.getpid()
"""
linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="the kernel is not asked here"
)


def play(code: str, before: str = "") -> str:
    program = before + textwrap.dedent(PROGRAM) + textwrap.dedent(code)
    environment = {**os.environ, "TASKAPP_ENV_FILE": ""}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@linux
@pytest.mark.parametrize("where", ["here", "on a thread"])
@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_to_itself_is_known_as_its_own(where: str, number: str) -> None:
    send = f"lambda: os.kill(me, signal.{number})"

    assert play(f"({send})() if {where == 'here'} else on_thread({send}); print(last() == (me, me, None))") == "True"


@linux
def test_under_gevent_where_threads_have_the_names_of_greenlets_the_sender_is_known() -> None:
    pytest.importorskip("gevent")
    told = play(
        "os.kill(me, signal.SIGTERM); print(last() == (me, me, None))",
        before="from gevent import monkey\nmonkey.patch_all()\n",
    )

    assert told == "True"


@linux
def test_the_signal_of_a_program_that_it_started_is_known_as_a_childs() -> None:
    told = play("""
        child = subprocess.Popen(["sh", "-c", f"sh -c 'kill -TERM {me}; sleep 5'; true"])
        sender, of, again = last()
        print(sender not in (me, child.pid), of == child.pid, again)
        child.kill()
    """)

    assert told == "True True None"


@linux
def test_the_signal_of_a_process_that_is_not_its_own_is_known_as_a_strangers() -> None:
    told = play("""
        first = subprocess.Popen([sys.executable, "-c", f"import os, time\\nif os.fork(): os._exit(0)\\n"
                                  f"while os.getppid() != 1 and os.getppid() == {me}: time.sleep(0.01)\\n"
                                  f"time.sleep(0.2); os.kill({me}, 15); time.sleep(5)"])
        first.wait()
        sender, of, _ = last()
        print(sender not in (me, first.pid), of)
    """)

    assert told == "True None"


@linux
def test_a_handler_that_a_task_has_changed_is_put_back_and_still_tells_the_sender() -> None:
    told = play("""
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signals.mend()
        os.kill(me, signal.SIGTERM)
        print(last() == (me, me, None), signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL)
    """)

    assert told == "True True"


@pytest.mark.parametrize("when", ["in a task", "before the start"])
def test_a_broken_connection_and_a_full_quota_end_nothing_whatever_a_program_sets(when: str) -> None:
    told = play(f"""
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        signals.{"mend" if when == "in a task" else "watch"}()
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            os.kill(me, number)
        print("runs on")
    """)

    assert told == "runs on"


def test_without_the_kernels_word_the_sender_is_unknown() -> None:
    assert play("signals._offset = None; os.kill(me, 15); print(last())") == "(None, None, None)"


CHILD = """
import os, signal, subprocess, sys, time
from taskapp.worker.process.stop_signals import obey_only

def end(*_):
    os.write(1, b"ended\\n")  # a print that the signal interrupted refuses a second one
    os._exit(0)

for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP):
    signal.signal(number, end)
obey_only(os.getppid())
"""
STRANGER = """
import os, re, time
os.kill({child}, {number})
while int(re.search(r"ShdPnd:\\s*(\\w+)", open("/proc/{child}/status").read())[1], 16):
    time.sleep(0.01)  # of two signals that come at once nobody can tell the sender
os.kill({child}, 10)
"""


@linux
@pytest.mark.parametrize("number", ["SIGTERM", "SIGQUIT", "SIGHUP"])
@pytest.mark.parametrize(
    ("send", "is_heard"),
    [
        ("os.kill(os.getpid(), number)", True),
        ("subprocess.run(['sh', '-c', f'kill -{int(number)} {os.getpid()}; sleep 0.2'])", True),
        ("signal.pause()  # the parent", True),
        ("signal.pause()  # a stranger", False),
    ],
)
def test_a_child_of_a_pool_hears_its_parent_and_itself_alone(send: str, is_heard: bool, number: str) -> None:
    code = f"""
number = signal.{number}
signal.signal(signal.SIGUSR1, lambda *_: None)
print("ready", flush=True)
{send}
print("runs on", flush=True)
"""
    environment = {**os.environ, "TASKAPP_ENV_FILE": ""}
    child = subprocess.Popen([sys.executable, "-c", CHILD + code], stdout=subprocess.PIPE, text=True, env=environment)
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    if "the parent" in send:
        child.send_signal(signal.Signals[number])
    elif "pause" in send:
        stranger = STRANGER.format(child=child.pid, number=int(signal.Signals[number]))
        subprocess.run([sys.executable, "-c", stranger], check=True)

    assert child.stdout.readline() == ("ended\n" if is_heard else "runs on\n")
    child.communicate(timeout=10)
