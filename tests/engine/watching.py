"""A node on a loop, told to break its connections; ``python -m tests.engine.watching LOOP PORT ROUNDS SEED``.

A process of its own: what a loop does to one that closes a descriptor it watches is to end it. Prints how many
messages were settled.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import threading
from time import monotonic
from typing import Any

from kombu.asynchronous.hub import Hub, set_event_loop

from taskapp.engine.claims import Claimed
from taskapp.engine.fetcher import Fetcher
from taskapp.transport.transport import Connection as BrokerConnection
from taskapp.worker.pool.hub import LoopHub
from tests.engine.bench import Bench

PATIENCE_SECONDS = 30.0
LOOPS = ("uvloop", "asyncio", "hub")
HOW = ("young", "shut", "thread", "client", "server", "all", "silent")


class _Server:
    def __init__(self, port: int) -> None:
        self.port = port


def main(loop: str, port: str, rounds: str, seed: str) -> int:
    os.environ["TASKAPP_EVENT_LOOP"] = "uvloop" if loop == "uvloop" else "asyncio"
    hub = Hub() if loop == "hub" else LoopHub()
    set_event_loop(hub)
    # kombu's hub polls only while it has something of its own to read.
    hub.add_reader(os.pipe()[0], int)
    dice = random.Random(int(seed))
    bench = Bench(_Server(int(port)))  # type: ignore[arg-type]  # it asks for the port alone
    options = {"client_name": "watching", "socket_timeout": 1.0, "socket_connect_timeout": 1.0}
    connection = BrokerConnection(f"redis://127.0.0.1:{port}/0", transport_options=options)
    channel = connection.channel()
    got: list[str] = []

    channel.basic_consume("q1", no_ack=False, callback=int, consumer_tag="tag")
    consumer = channel._consumer

    def take(claimed: Claimed) -> None:
        got.append(claimed.envelope.body.decode())
        consumer.node.settle(claimed.tag)

    consumer._hand_out = take
    connection.transport.register_with_event_loop(connection.connection, hub)
    young = _break_young_ones(connection.transport.cycle, consumer)
    children: list[int] = []
    try:
        for number, how in enumerate(dice.sample(HOW * (int(rounds) // len(HOW)), int(rounds))):
            _turn(hub, lambda: consumer.node.pipe.is_open and consumer.waiting.is_open)
            if number % 10 == 0:
                children.append(_child_that_holds_everything())
            if how == "young":
                young["old"] = consumer.node.pipe.socket
            _break(how, consumer, bench)
            bench.push(f"message {number}")
            _turn(hub, lambda wanted=number + 1: len(set(got)) == wanted)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    sys.stdout.write(f"{len(set(got))}\n")
    return 0


def _break_young_ones(poller: Any, consumer: Fetcher) -> dict[str, Any]:
    """Break the connection after ``["old"]`` as soon as the loop watches it, before it has polled."""
    wanted: dict[str, Any] = {}
    watch, pipe = poller._watch, consumer.node.pipe

    def watch_and_break() -> None:
        watch()
        if wanted and pipe.is_open and pipe.socket is not wanted["old"]:
            wanted.clear()
            pipe.socket.shutdown(socket.SHUT_RDWR)
            consumer.node.count("expired")  # finds it broken

    poller._watch = watch_and_break
    return wanted


def _child_that_holds_everything() -> int:
    child = os.fork()
    if not child:
        signal.pause()
        os._exit(0)
    return child


def _break(how: str, consumer: Fetcher, bench: Bench) -> None:
    node, waiting = consumer.node, consumer.waiting
    if how == "young":
        bench.client.client_kill_filter(_id=_id_of(bench, node.pipe))
    elif how == "shut":
        node.pipe.shut()
    elif how == "thread":
        # The server resets it, and a thread finds out first.
        bench.client.client_kill_filter(_id=_id_of(bench, node.pipe))
        thread = threading.Thread(target=lambda: [node.count("expired") for _ in range(3)])
        thread.start()
        thread.join()
    elif how == "client":
        node.drop()
    elif how == "server":
        bench.client.client_kill_filter(_id=_id_of(bench, waiting))
    elif how == "all":
        for client in bench.client.client_list():
            if client["name"] == "watching":
                bench.client.client_kill_filter(_id=client["id"])
    else:
        waiting.close()
        waiting.unanswered.clear()


def _id_of(bench: Bench, pipe: object) -> str:
    host, port = pipe.socket.getsockname()[:2]  # type: ignore[attr-defined]
    return next(client["id"] for client in bench.client.client_list() if client["addr"] == f"{host}:{port}")


def _turn(hub: object, until: object) -> None:
    deadline = monotonic() + PATIENCE_SECONDS
    while not until():  # type: ignore[operator]
        if monotonic() > deadline:
            raise AssertionError("the node does not go on")
        hub.run_once()  # type: ignore[attr-defined]


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
