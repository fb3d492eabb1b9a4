"""Connections that are opened beside the loop."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from taskapp.broker.polled import Opener
from tests.support import eventually


class Connection:
    def __init__(self, greet: Callable[[], None]) -> None:
        self._sock: object = None
        self._greet = greet

    def connect(self) -> None:
        self._greet()
        self._sock = object()


class Client:
    def __init__(self, greet: Callable[[], None]) -> None:
        self.connection: Connection | None = None
        self.connection_pool = self
        self._greet = greet

    def get_connection(self) -> Connection:
        return Connection(self._greet)


def test_what_is_connected_is_open() -> None:
    client = Client(lambda: None)
    opener = Opener()
    assert opener.are_open([])
    assert not opener.are_open([client])
    assert eventually(lambda: opener.are_open([client]))


def test_a_server_that_does_not_greet_holds_nobody_up() -> None:
    greeted = threading.Event()
    client, opener = Client(lambda: greeted.wait(20) or None), Opener()
    for _ in range(100):
        assert not opener.are_open([client])
    assert threading.active_count() < 50
    greeted.set()
    assert eventually(lambda: opener.are_open([client]))


def test_a_failure_is_raised_once_and_tried_again() -> None:
    problems = [RedisConnectionError("refused")]

    def greet() -> None:
        if problems:
            raise problems.pop()

    client, opener = Client(greet), Opener()
    assert not opener.are_open([client])
    with pytest.raises(RedisConnectionError, match="refused"):
        eventually(lambda: opener.are_open([client]))
    assert eventually(lambda: opener.are_open([client]))
