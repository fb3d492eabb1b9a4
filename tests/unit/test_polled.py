"""Connections that are opened outside the loop."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from taskapp.transport.polled import Opener
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
        self.connection = Connection(greet)


class NeverConnected:
    connection = None


def opening() -> int:
    return sum(thread.name == "taskapp-open" for thread in threading.enumerate())


def test_what_was_never_connected_is_left_to_kombu() -> None:
    assert Opener().are_open([NeverConnected()])
    assert not opening()


def test_what_has_lost_its_connection_is_connected_again() -> None:
    client, opener = Client(lambda: None), Opener()
    assert not opener.are_open([client])
    assert eventually(lambda: opener.are_open([client]))


def test_a_server_that_does_not_greet_holds_nobody_up() -> None:
    greeted = threading.Event()
    client, opener = Client(lambda: greeted.wait(20) or None), Opener()
    for _ in range(100):
        assert not opener.are_open([client])
    assert opening() == 1
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
