"""What every part that speaks to Redis shares: the names of keys, Lua scripts, one held connection.

The only module that names a key. ``KEYS`` is the table; scripts get functions of the same names.
Keys of one queue share the hash tag of its plain ready list, so that they could lie in one slot of
a Redis Cluster. What forbids a Cluster today: the ready lists of priorities 1 to 9 have kombu's
names, which carry no tag, and one claim spans several queues.
"""

from __future__ import annotations

import hashlib
import select
import threading
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import hiredis
from redis.connection import Connection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, NoScriptError, RedisError, ResponseError

from taskapp.queues import ready_key

KEYS: dict[str, str] = {
    # one a deployment
    "leases": "<P>taskapp:leases",  # sorted set: epoch -> when its lease ends
    "clock": "<P>taskapp:clock",  # hash: offset, tick, reap_after
    "counts": "<P>taskapp:counts",  # hash: what was counted and not kept
    "totals": "<P>taskapp:totals",  # hash: what has happened to tasks since the beginning, see broker/totals.py
    "types": "<P>taskapp:types",  # set: task types a node has announced, ever
    "total_types": "<P>taskapp:totals:types",  # set: those of them that have totals of their own
    "minute": "<P>taskapp:totals:<X>",  # hash by minute since 1970, wall clock: the same by queue, for two hours
    "nodes": "<P>taskapp:nodes",  # hash: epoch -> JSON, what the node says of itself
    "queues": "<P>taskapp:queues",  # set: queues that have had a delayed, parked or dead message
    "parked_sweep": "<P>taskapp:parked_sweep",  # hash: who looks for what was parked too long, until when, how far
    "living": "<P>taskapp:parked_sweep:nodes",  # set: epochs whose task types it knows
    "living_types": "<P>taskapp:parked_sweep:types",  # set: t:<task type> that they have
    "untold": "<P>taskapp:untold",  # sorted set: letter -> when a node was told to fail its task
    "schedules": "<P>taskapp:schedules",  # sorted set, all at 0: name
    "schedules_due": "<P>taskapp:schedules:due",  # sorted set: name -> when its next tick is to be sent, wall clock
    "schedules_config": "<P>taskapp:schedules:config",  # set: names of those that come from beat_schedule
    "schedules_paused": "<P>taskapp:schedules:paused",  # set: names of those that are paused and not broken
    "schedules_broken": "<P>taskapp:schedules:broken",  # set: names of those that are set aside
    "schedules_wake": "<P>taskapp:schedules:wake",  # list of at most one token, for the leader
    "calendars": "<P>taskapp:schedules:calendars",  # hash: name -> JSON list of days
    "beat": "<P>taskapp:beat",  # hash: leader, token, until, tick_at, changes
    "finished": "<P>taskapp:finished",  # stream: r -> a task that has ended, see broker/finished.py
    "finished_aside": "<P>taskapp:finished:aside",  # list: those of them that were of no use, the latest first
    "finished_writer": "<P>taskapp:finished:writer",  # string: who writes them down
    # one a schedule
    "schedule": "<P>taskapp:schedule:<X>",  # hash: about, revision, due, runs, … see schedules/known.py
    "schedule_runs": "<P>taskapp:schedule:<X>:runs",  # list of JSON: the last ticks, the latest first
    "schedule_open": "<P>taskapp:schedule:<X>:open",  # sorted set: <due ms>:<id> of an unfinished tick -> sent at
    # one a tick, on brokers that are not the engine's
    "tick": "<P>taskapp:tick:<X>",  # hash: copy, run, ended
    # one a node
    "leased": "<P>taskapp:leased:<X>",  # hash: tag -> message
    "node": "<P>taskapp:node:<X>",  # hash: fence, crowd, t:<task type>
    "revoked": "<P>taskapp:revoked",  # sorted set: id of a task that was revoked -> when
    # one a task, where something is worth it
    "task": "<P>taskapp:task:<X>",  # hash: progress, revoked_at, cancelled_at
    "task_retries": "<P>taskapp:task:<X>:retries",  # list of JSON: the runs that asked for another
    "task_log": "<P>taskapp:task:<X>:log",  # stream: its last log lines
    "task_logs": "<P>taskapp:task_logs",  # sorted set: id of a task with log lines -> when the last was written
    # one a process that takes notes on tasks
    "scribe": "<P>taskapp:scribe:<X>",  # string: number of its last batch
    # one a submitting process
    "producer": "<P>taskapp:producer:<X>",  # string: number of its last push, or "closed"
    # one a chord
    "chord": "<P>taskapp:chord:<X>",  # hash: size, extra, about, finish, sent
    "chord_parts": "<P>taskapp:chord:<X>:parts",  # hash: task id -> outcome
    # one a queue
    "wake": "<P>taskapp:{<P><X>}:wake",  # list of at most one token
    "delayed": "<P>taskapp:{<P><X>}:delayed",  # sorted set: id -> due at
    "delayed_messages": "<P>taskapp:{<P><X>}:delayed:messages",  # hash: id -> message
    "parked": "<P>taskapp:{<P><X>}:parked",  # hash: task type -> parked since, of the oldest
    "parked_messages": "<P>taskapp:{<P><X>}:parked:<Y>",  # list, by task type
    "dead": "<P>taskapp:{<P><X>}:dead:<Y>",  # sorted set by reason: number -> buried at
    "dead_number": "<P>taskapp:{<P><X>}:dead:number",  # the last number given
    "dead_raw": "<P>taskapp:{<P><X>}:dead:raw",  # hash: number -> the bytes as they came
    "dead_about": "<P>taskapp:{<P><X>}:dead:about",  # hash: number -> JSON
    "aside": "<P>taskapp:{<P><X>}:aside:<Y>",  # a key of the wrong type, renamed
}
"""Name to pattern; ``<P>`` is the prefix, ``<X>`` and ``<Y>`` what the name is asked for."""

SHEBANG = "#!lua flags=allow-oom\n"
FREEING_WRITE = "redis.call('DEL', KEYS_PREFIX .. 'taskapp:none')\n"
"""Redis 6.2 knows no flags; it refuses memory only to a script that has not written yet."""


class Keys:
    """The names of keys under one prefix."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix

    def __call__(self, name: str, x: str = "", y: str = "") -> str:
        """Return the key ``name`` of ``x`` (a queue, an epoch) and ``y`` (a reason, a task type)."""
        return KEYS[name].replace("<P>", self.prefix).replace("<X>", x).replace("<Y>", y)

    def ready(self, queue: str, priority: int = 0) -> str:
        """Return the name of the ready list of ``queue`` at ``priority``, as kombu names it."""
        return self.prefix + ready_key(queue, priority)


def _lua_names(body: str) -> str:
    """Return those of ``KEYS`` that ``body`` uses as Lua functions: ``key_leased(epoch)``."""
    lines = []
    for name, pattern in KEYS.items():
        if f"key_{name}(" not in body:
            continue
        parts = pattern.replace("<P>", "\0P\0").replace("<X>", "\0x\0").replace("<Y>", "\0y\0").split("\0")
        names = {"P": "KEYS_PREFIX", "x": "x", "y": "y"}
        joined = " .. ".join(names.get(part) or f"'{part}'" for part in parts if part)
        lines.append(f"local function key_{name}(x, y) return {joined} end")
    return "\n".join(lines) + "\n"


class Script:
    """One operation on the server.

    ``ARGV[1]`` is the key prefix. Scripts of a folder share its ``prelude.lua``. A script whose
    first line is the shebang may use memory when Redis is full.
    """

    def __init__(self, package: str, name: str) -> None:
        self.name = name
        # Not by ``importlib.resources``, which imports more at its first call: that is a thread's, and a child that is
        # forked meanwhile waits for the lock of that import for ever.
        folder = Path(str(import_module(package).__file__)).parent / "lua"
        source = (folder / f"{name}.lua").read_text()
        self.frees = source.startswith(SHEBANG)
        body = (folder / "prelude.lua").read_text() + source.removeprefix(SHEBANG)
        names = "local KEYS_PREFIX = ARGV[1]\n" + _lua_names(body)
        self._modern = _Source((SHEBANG if self.frees else "") + names + body)
        self._old = _Source(names + FREEING_WRITE + body) if self.frees else None

    def source(self, *, modern: bool) -> _Source:
        """Return the text and its digest for Redis 7 or newer (``modern``), or for 6.2."""
        return self._modern if modern or self._old is None else self._old


class _Source:
    def __init__(self, text: str) -> None:
        self.text = text.encode()
        self.sha = hashlib.sha1(self.text, usedforsecurity=False).hexdigest()


@cache
def script(package: str, name: str) -> Script:
    """Return the script ``name`` of ``package``, read once."""
    return Script(package, name)


class NotSent(RedisConnectionError):
    """A command did not reach the server: it was not carried out."""


class OutcomeUnknown(RedisConnectionError):
    """A command was sent and the answer did not come: nobody here knows whether it was carried out."""


class Link:
    """One held connection, used by one thread at a time. Reconnects by itself; never repeats a command."""

    def __init__(self, connect: Callable[[], Connection], package: str = "taskapp.broker") -> None:
        self.connect = connect
        """Opens another connection to the same server."""
        self._package = package
        self._line: _Line | None = None
        self._lock = threading.RLock()
        self.patience_seconds: float | None = None
        """How long opening a connection may take; ``None``: as the connection says."""

    def run(self, name: str, *args: Any) -> Any:
        """Run the script ``name``; its first argument is the key prefix.

        Raises:
            NotSent: The server could not be reached.
            OutcomeUnknown: The connection broke while waiting for the answer.
            ResponseError: The server, or the script, refused.
        """
        with self._lock:
            line = self._usable()
            source = script(self._package, name).source(modern=line.is_modern)
            answer = self._ask(line, ("EVALSHA", source.sha, b"0", *args))
            if isinstance(answer, NoScriptError):
                answer = self._ask(line, ("EVAL", source.text, b"0", *args))
            return _unless_refused(answer)

    def command(self, *args: Any) -> Any:
        """Send one command and return its answer; errors as with ``run``."""
        with self._lock:
            return _unless_refused(self._ask(self._usable(), args))

    def pipeline(self, commands: list[tuple[Any, ...]]) -> list[Any]:
        """Send ``commands`` at once and return their answers; a refusal stands among them as its error."""
        with self._lock:
            line = self._usable()
            self._send(line, b"".join([hiredis.pack_command(command) for command in commands]))
            return [self._answer(line) for _ in commands]

    def close(self) -> None:
        """Let go of the connection; the next command opens another."""
        line, self._line = self._line, None
        if line is not None:
            line.connection.disconnect()

    def _usable(self) -> _Line:
        line = self._line
        if line is not None and line.has_ended():
            self.close()
        if self._line is None:
            self._line = self._open()
        return self._line

    def _open(self) -> _Line:
        try:
            connection = self.connect()
            usual_seconds = connection.socket_timeout
            if self.patience_seconds is not None:
                # Connecting and the first answer are two waits.
                each_seconds = max(self.patience_seconds / 2, 0.05)
                connection.socket_timeout = min(connection.socket_timeout or each_seconds, each_seconds)
                connection.socket_connect_timeout = min(connection.socket_connect_timeout or each_seconds, each_seconds)
            connection.connect()
            line = _Line(connection)
            line.socket.settimeout(usual_seconds)
        except (RedisError, OSError) as error:
            raise NotSent(str(error)) from error
        return line

    def _ask(self, line: _Line, command: tuple[Any, ...]) -> Any:
        self._send(line, hiredis.pack_command(command))
        return self._answer(line)

    def _send(self, line: _Line, packed: bytes) -> None:
        try:
            line.socket.sendall(packed)
        except OSError as error:
            self.close()
            raise NotSent(str(error)) from error
        except BaseException:
            # Interrupted halfway, by a time limit for example: the rest would be taken for the next command's.
            self.close()
            raise

    def _answer(self, line: _Line) -> Any:
        """Return the next answer; a refusal is one, too."""
        try:
            answer = line.read()
            if isinstance(answer, RedisConnectionError):
                raise answer  # loading its data, or asking who we are
        except (OSError, RedisError) as error:
            self.close()
            raise OutcomeUnknown(str(error)) from error
        except BaseException:
            # Interrupted between question and answer: the next one would read this answer.
            self.close()
            raise
        return answer


class _Line:
    """An open connection, without what redis-py does around each command: ten times the work of the command."""

    READ_BYTES = 1 << 14

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.is_modern = is_modern(connection)
        # redis-py offers no other way to the socket and to its own errors.
        self.socket: Any = connection._sock
        if self.socket is None:
            raise RedisConnectionError("the server closed the connection")
        self._reader: Any = hiredis.Reader(replyError=connection._parser.parse_error, notEnoughData=_Line)
        self._poll: Any = select.poll()
        self._poll.register(self.socket, select.POLLIN)

    def read(self) -> Any:
        """Return the next answer, an exception if it is an error; raises ``OSError`` and redis' errors."""
        reader = self._reader
        try:
            while (answer := reader.gets()) is _Line:
                data = self.socket.recv(self.READ_BYTES)
                if not data:
                    raise RedisConnectionError("the server closed the connection")
                reader.feed(data)
        except hiredis.ProtocolError as error:
            raise RedisConnectionError(str(error)) from error
        return answer

    def has_ended(self) -> bool:
        """Say whether the server closed an idle connection: nothing that is asked would be answered."""
        try:
            return bool(self._poll.poll(0))
        except (OSError, ValueError):
            return True


def _unless_refused(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


def all_answered(answers: list[Any]) -> list[Any]:
    """Return the ``answers`` of a pipeline; raises the first refusal among them."""
    for answer in answers:
        _unless_refused(answer)
    return answers


REFUSALS = ("MISCONF", "NOREPLICAS", "OOM", "READONLY")
"""How Redis begins its answer when it writes nothing for now: a full disk or memory, a failover. Not what was asked is
wrong, and asking again helps."""


SHEBANG_PROBE = "#!lua flags=no-writes,allow-stale\nreturn 1"


def is_modern(connection: Connection) -> bool:
    """Return whether the server at ``connection`` knows flags in scripts (Redis 7, Valkey).

    Asked in words that a user may use who may not ask ``INFO``.
    """
    try:
        hello = _asked(connection, "HELLO")
    except ResponseError:
        return _knows_flags(connection)
    fields = hello if isinstance(hello, dict) else dict(zip(hello[::2], hello[1::2], strict=True))
    server, version = (bytes(fields.get(name, b"")) for name in (b"server", b"version"))
    return server == b"valkey" or int(version.split(b".")[0] or 7) >= 7


def _knows_flags(connection: Connection) -> bool:
    try:
        return bool(_asked(connection, "EVAL", SHEBANG_PROBE, 0))
    except NoPermissionError:
        return True
    except ResponseError:
        return False


def _asked(connection: Connection, *command: Any) -> Any:
    connection.send_command(*command, check_health=False)
    return connection.read_response()
