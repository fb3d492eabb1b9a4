"""A real RabbitMQ for tests, with the Erlang name server it needs."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

import kombu

from tests.support import Process, clean_environment, eventually, free_port

SCRIPT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""The one on PATH in Debian changes to another user, who may not write here."""
CONTROL = SCRIPT.with_name("rabbitmqctl")


def is_installed() -> bool:
    return SCRIPT.exists() and shutil.which("epmd") is not None


class RabbitMQ:
    """A server on ports of its own, with all its files in ``directory``."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        names_port = free_port()
        environment = clean_environment(
            HOME=str(directory), ERL_EPMD_PORT=str(names_port), ERL_EPMD_ADDRESS="127.0.0.1",
            RABBITMQ_NODENAME=f"taskapp-{self.port}@localhost", RABBITMQ_NODE_IP_ADDRESS="127.0.0.1",
            RABBITMQ_NODE_PORT=str(self.port), RABBITMQ_DIST_PORT=str(free_port()),
            RABBITMQ_MNESIA_BASE=str(directory), RABBITMQ_LOG_BASE=str(directory),
            RABBITMQ_PID_FILE=str(directory / "pid"), RABBITMQ_ENABLED_PLUGINS_FILE=str(directory / "plugins"),
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 1:1",
        )  # fmt: skip
        self._names = Process(["epmd", "-port", str(names_port)], directory / "epmd.log", environment)
        self._server = Process([str(SCRIPT)], directory / "rabbitmq.log", environment)
        self._wait()

    def stop(self) -> None:
        self._server.close()

    def start(self) -> None:
        """Start it again, with its queues and messages."""
        self._server.start()
        self._wait()

    def _wait(self) -> None:
        eventually(self.answers, within_seconds=60.0, every_seconds=0.2)

    def room(self, name: str) -> str:
        """Make a virtual host, which is as empty as a new server; return its URL."""
        every = '<<".*">>'
        self._evaluate(
            f'rabbit_vhost:add(<<"{name}">>, <<"tests">>), rabbit_auth_backend_internal:set_permissions('
            f'<<"guest">>, <<"{name}">>, {every}, {every}, {every}, <<"tests">>).'
        )
        return f"amqp://guest:guest@127.0.0.1:{self.port}/{name}"

    def _evaluate(self, expression: str) -> None:
        argv = [str(CONTROL), "-n", self._server.env["RABBITMQ_NODENAME"], "eval", expression]
        subprocess.run(argv, env=self._server.env, capture_output=True, timeout=60, check=True)

    def alarm(self, *, on: bool) -> None:
        """Let it take no messages, as when its memory is full, or take them again."""
        watermark = "0.00000001" if on else "0.4"
        argv = [str(CONTROL), "-n", self._server.env["RABBITMQ_NODENAME"], "set_vm_memory_high_watermark", watermark]
        subprocess.run(argv, env=self._server.env, capture_output=True, timeout=60, check=True)

    def freeze(self) -> None:
        os.killpg(self._server.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self._server.pid, signal.SIGCONT)

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def answers(self) -> bool:
        try:
            with kombu.Connection(self.url, connect_timeout=1) as connection:
                connection.connect()
        except (OSError, kombu.exceptions.OperationalError):
            return False
        return True

    def close(self) -> None:
        self._server.kill()
        self._names.kill()
