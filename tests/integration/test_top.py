"""``taskapp top`` on a live system, in a pipe and on a terminal."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.integration import shop
from tests.support import Process, RedisServer, clean_environment, eventually

SHOP = "tests.integration.shop"
TOP = [sys.executable, "-m", "taskapp", "top"]


class Terminal:
    """What a program on a terminal has drawn so far."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.drawn = b""
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while piece := os.read(self._descriptor, 65_536):
                self.drawn += piece
        except OSError:
            return  # the other end is closed

    def shows(self, text: str) -> bool:
        """Return whether it showed ``text`` since the last call."""
        if text.encode() not in self.drawn:
            return False
        self.drawn = b""
        return True


@contextmanager
def on_terminal(argv: list[str], **variables: str) -> Iterator[tuple[subprocess.Popen[bytes], Terminal]]:
    ours, theirs = pty.openpty()
    environment = clean_environment(TERM="xterm", COLUMNS="120", LINES="40", **variables)
    process = subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=Path.cwd())
    os.close(theirs)
    try:
        yield process, Terminal(ours)
    finally:
        process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.usefixtures("app")
def test_in_a_pipe_it_prints_one_screen(worker: Callable[..., Process], redis_server: RedisServer) -> None:
    worker("-Q", "default,low", TASKAPP_INCLUDE=SHOP)
    shop.greet.delay("x").get(timeout=20)
    for _ in range(7):
        shop.greet.apply_async(("nobody takes this",), queue="high")

    def idle_screen() -> str:
        """What is printed, once the node has said that it runs nothing: it does with each heartbeat."""
        done = subprocess.run(
            [*TOP, "--every", "0.5"], env=clean_environment(TASKAPP_BROKER_URL=redis_server.url), cwd=Path.cwd(),
            capture_output=True, text=True, timeout=30, check=True,
        )  # fmt: skip
        return done.stdout if re.search(r"@\S+ +running +0/", done.stdout) else ""

    screen = eventually(idle_screen)
    lines = {line.split()[0]: " ".join(line.split()) for line in screen.splitlines() if line.strip()}
    assert "1 node running 7 waiting" in " ".join(screen.split())
    assert lines["high"].startswith("high 7 ")
    assert lines["high"].endswith(" 0 · ·")
    assert lines["default"] == "default · · · · · · 1 · ·"
    assert " running 0/1,00" in next(line for name, line in lines.items() if "@" in name)


@pytest.mark.usefixtures("app")
def test_on_a_terminal_it_goes_on_while_the_broker_is_away(
    worker: Callable[..., Process], redis_server: RedisServer
) -> None:
    worker(TASKAPP_INCLUDE=SHOP)
    with on_terminal([*TOP, "--every", "0.3"], TASKAPP_BROKER_URL=redis_server.url) as (process, terminal):
        eventually(lambda: terminal.shows("1 node running"))
        shop.greet.delay("x")
        eventually(lambda: terminal.shows(f"{SHOP}.greet"))
        redis_server.kill()
        eventually(lambda: terminal.shows("trying again"))
        redis_server.start()
        eventually(lambda: terminal.shows("waiting"))

        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0


def test_a_ctrl_c_that_comes_in_a_finalizer_ends_it(redis_server: RedisServer) -> None:
    # Python drops what a finalizer raises, and a KeyboardInterrupt is raised wherever the signal comes.
    script = """if True:
        import os, signal
        from taskapp.cli import top as command
        from taskapp.cli.main import taskapp
        real_look = command.look

        class Interrupting:
            def __del__(self):
                os.kill(os.getpid(), signal.SIGINT)

        def look():
            Interrupting()
            return real_look()

        command.look = look
        taskapp(["top", "--every", "60"])
    """
    with on_terminal([sys.executable, "-c", script], TASKAPP_BROKER_URL=redis_server.url) as (process, _):
        assert process.wait(timeout=20) == 0
