"""A real RabbitMQ for tests, with the Erlang name server it needs."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple, Self

import kombu

from tests import guardian
from tests.support import Process, clean_environment, eventually, free_port

SCRIPT = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
"""The one on PATH in Debian changes to another user, who may not write here."""
CONTROL = SCRIPT.with_name("rabbitmqctl")


def is_installed() -> bool:
    return SCRIPT.exists() and shutil.which("epmd") is not None


ROOMS_AT_ONCE = 16
"""How many virtual hosts are made together: one command takes half a second of CPU, one host a hundredth."""


class Ports(NamedTuple):
    """Where a server listens."""

    broker: int
    names: int
    nodes: int

    @classmethod
    def free(cls) -> Self:
        return cls(free_port(), free_port(), free_port())


class Rooms:
    """A running server, started here or by another process, with its files in ``directory``."""

    def __init__(self, directory: Path, ports: Ports) -> None:
        self.directory, self.ports = directory, ports
        self._environment = clean_environment(
            HOME=str(directory), ERL_EPMD_PORT=str(ports.names), ERL_EPMD_ADDRESS="127.0.0.1",
            RABBITMQ_NODENAME=f"taskapp-{ports.broker}@localhost", RABBITMQ_NODE_IP_ADDRESS="127.0.0.1",
            RABBITMQ_NODE_PORT=str(ports.broker), RABBITMQ_DIST_PORT=str(ports.nodes),
            RABBITMQ_MNESIA_BASE=str(directory), RABBITMQ_LOG_BASE=str(directory),
            RABBITMQ_PID_FILE=str(directory / "pid"), RABBITMQ_ENABLED_PLUGINS_FILE=str(directory / "plugins"),
            RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S 1:1",
        )  # fmt: skip

    def room(self) -> str:
        """Return the URL of a virtual host that nobody else gets, which is as empty as a new server."""
        with _locked(self.directory / "rooms") as file:
            number = int(file.read() or 0)
            if number % ROOMS_AT_ONCE == 0:
                self._make_rooms(number)
            file.truncate(0)
            file.write(str(number + 1))
        return f"amqp://guest:guest@127.0.0.1:{self.ports.broker}/room-{number}"

    def _make_rooms(self, first: int) -> None:
        every = '<<".*">>'
        self._command(
            "eval",
            'lists:foreach(fun(N) -> V = list_to_binary("room-" ++ integer_to_list(N)), rabbit_vhost:add(V, '
            f'<<"tests">>), rabbit_auth_backend_internal:set_permissions(<<"guest">>, V, {every}, {every}, {every}, '
            f'<<"tests">>) end, lists:seq({first}, {first + ROOMS_AT_ONCE - 1})).',
        )

    def _command(self, *arguments: str) -> None:
        argv = [str(CONTROL), "-n", self._environment["RABBITMQ_NODENAME"], *arguments]
        subprocess.run(argv, env=self._environment, capture_output=True, timeout=60, check=True)


class RabbitMQ(Rooms):
    """A server on ports of its own."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, Ports.free())
        names = ["epmd", "-port", str(self.ports.names)]
        self._names = Process(names, directory / "epmd.log", self._environment)
        self._server = Process([str(SCRIPT)], directory / "rabbitmq.log", self._environment)
        try:
            self._wait()
        except BaseException:
            self.close()  # the next that asks for it starts it in the same directory
            raise

    def stop(self) -> None:
        self._server.close()

    def start(self) -> None:
        """Start it again, with its queues and messages."""
        self._server.start()
        self._wait()

    def _wait(self) -> None:
        eventually(self.answers, within_seconds=60.0, every_seconds=0.2)

    def alarm(self, *, on: bool) -> None:
        """Let it take no messages, as when its memory is full, or take them again."""
        watermark = "0.00000001" if on else "0.4"
        self._command("set_vm_memory_high_watermark", watermark)

    def freeze(self) -> None:
        os.killpg(self._server.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.killpg(self._server.pid, signal.SIGCONT)

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.ports.broker}//"

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


def of_the_run(directory: Path) -> Rooms:
    """Return the server that all workers of a run of tests share; the first that asks starts it.

    It ends with the run: a worker may end before the others do.
    """
    directory.mkdir(exist_ok=True)
    with _locked(directory / "ports") as file:
        if ports := file.read():
            return Rooms(directory, Ports(*json.loads(ports)))
        with guardian.for_the_run():
            server = RabbitMQ(directory)
        file.write(json.dumps(server.ports))
    return server


@contextmanager
def _locked(path: Path) -> Iterator[IO[str]]:
    """Open a file, which may be empty, for this process alone."""
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        yield file
        file.flush()
