"""Examines a deployment from outside: servers, nodes, waiting messages. Changes nothing."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError
from redis.retry import Retry

from taskapp.app.application import Celery
from taskapp.app.remarks import Remark, remarks_on
from taskapp.devredis import own_server
from taskapp.devredis.login import guarded
from taskapp.engine.snapshot import read_snapshot
from taskapp.errors import TaskappError
from taskapp.migrate.stock_celery import bindings, held_messages, signs_of_life
from taskapp.monitor import doctor_tasks as tasks
from taskapp.monitor.doctor_checks import CHECKS, CheckOutcome, DeploymentFacts, Stall, Verdict, fail, judge, ok, warn
from taskapp.monitor.doctor_outbox import outbox
from taskapp.redis.keys import Keys
from taskapp.settings import Settings
from taskapp.urls import masked, revealed, servers_of

PINGS = 20
ANSWER_SECONDS = 5.0
"""Timeout for one answer of a server."""
NODES_SECONDS = 1.0
"""Timeout for answers of nodes."""
STOCK_QUEUE = "celery"
"""Default queue and exchange of a stock Celery app."""
OWN_TASK = "taskapp.finish_chord"
"""A task that every taskapp node registers."""
PARAMETERS = ("appendfsync", "save", "timeout", "maxclients")
REDIS_SCHEMES = ("redis", "rediss", "unix", "redis+socket")


class ServerUnreachable(TaskappError):
    """The server cannot be examined."""

    def __init__(self, found: str, remedy: str) -> None:
        self.found, self.remedy = found, remedy
        super().__init__(f"{found}; {remedy}")


class Finding(NamedTuple):
    """One line of the report."""

    server: str
    """``broker`` or ``results``."""
    check: str
    verdict: Verdict
    found: str
    remedy: str
    """What to do if the verdict is not ok."""


# --- reaching a server ---------------------------------------------------------------------------


def plain(url: str) -> str:
    """Rewrite kombu's spellings in ``url`` to those of redis-py."""
    if url.startswith("redis+socket://"):
        url = re.sub(r"(?<=[?&])virtual_host=/?", "db=", url.replace("redis+socket://", "unix://", 1))
    return re.sub(r"(?<=ssl_cert_reqs=)CERT_(\w+)", lambda match: match[1].lower(), url)


def is_redis(url: str) -> bool:
    """Return whether ``url`` names a single Redis server, which can be examined."""
    return url.partition("://")[0] in REDIS_SCHEMES


def connect(url: str, setting: str, own_server: Path | None = None) -> redis.Redis:
    """Return a client for the Redis at ``url`` that returns bytes and waits at most five seconds.

    Args:
        url: URL of the server.
        setting: Name of the setting with the URL, for error messages.
        own_server: Directory of the embedded server, if ``url`` is that one.

    Raises:
        ServerUnreachable: ``url`` is malformed, or not the URL of a single Redis.
    """
    if not is_redis(url):
        scheme = url.partition("://")[0]
        raise ServerUnreachable(f"{setting} is {scheme}://…", "only redis://, rediss:// and unix:// can be examined")
    try:
        client = redis.Redis.from_url(
            plain(url),
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        if own_server:
            pool = client.connection_pool
            options = guarded({**pool.connection_kwargs, "connection_class": pool.connection_class}, own_server)
            client = redis.Redis(connection_pool=redis.ConnectionPool(**options))
        client.connection_pool.make_connection()
    except (ValueError, TypeError, RedisError):
        # Leave out the reason: it may quote part of the password.
        raise ServerUnreachable(
            f"{setting} is not a valid URL",
            "write redis://:password@host:6379/0, with the password percent-encoded (/ is %2F, @ is %40, # is %23)",
        ) from None
    return client


@contextmanager
def reachable(url: str, setting: str) -> Iterator[None]:
    """Map errors of the Redis at ``url``, the value of ``setting``, to ``ServerUnreachable``.

    Raises:
        ServerUnreachable: The server does not answer, or refuses the login.
    """
    try:
        yield
    except AuthenticationError as error:
        raise ServerUnreachable(
            f"the Redis at {masked(url)} refuses the login ({error})", f"correct the user and password in {setting}"
        ) from error
    except (RedisError, OSError) as error:
        raise ServerUnreachable(
            f"the Redis at {masked(url)} does not answer ({error})", f"start it, or correct {setting}"
        ) from error


# --- reading a server ----------------------------------------------------------------------------


def read_facts(client: redis.Redis, url: str) -> DeploymentFacts:
    """Read the facts of the server at ``url``; skips those the user may not read.

    Raises:
        RedisError: The server cannot be reached, refuses the login, or is still loading its data.
    """
    client.ping()  # connects
    round_trips = [_round_trip_seconds(client) for _ in range(PINGS)]
    before_at = time.time()
    now_at = _server_time(client)
    info: dict[str, Any] = {}
    config: dict[str, str] = {}
    with suppress(ResponseError):
        info = client.info()
    for parameter in PARAMETERS:
        with suppress(ResponseError):
            config |= cast("dict[str, str]", client.config_get(parameter))
    return DeploymentFacts(
        url=plain(url),
        info=info,
        config=config,
        round_trips_seconds=tuple(round_trips),
        now_at=now_at,
        ahead_seconds=now_at - before_at - round_trips[-1] / 2,
        is_open=_is_open(client),
        refused_scripting=_refused_scripting(client),
        stalls=tuple(_stalls(client)),
    )


def _round_trip_seconds(client: redis.Redis) -> float:
    started = time.perf_counter()
    client.ping()
    return time.perf_counter() - started


def _server_time(client: redis.Redis) -> float:
    seconds, microseconds = client.time()
    return seconds + microseconds / 1_000_000


def _is_open(client: redis.Redis) -> bool:
    """Return whether the server serves clients without a password."""
    pool = client.connection_pool
    login = ("username", "password", "credential_provider")
    options = {name: value for name, value in pool.connection_kwargs.items() if name not in login}
    stranger = redis.Redis(connection_pool=redis.ConnectionPool(pool.connection_class, **options))
    try:
        return bool(stranger.ping())
    except (AuthenticationError, ResponseError):
        return False
    finally:
        stranger.close()
        stranger.connection_pool.disconnect()


def _refused_scripting(client: redis.Redis) -> str:
    try:
        client.eval("return 1", 0)
        client.script_load("return 1")
    except ResponseError as error:
        return str(error)
    return ""


def _stalls(client: redis.Redis) -> Iterator[Stall]:
    with suppress(ResponseError):
        for entry in client.slowlog_get(128):
            # Only the name: arguments are user data.
            name = entry["command"].split(maxsplit=1)[0].decode(errors="replace")
            yield Stall(f"the command {name}", entry["duration"] / 1_000_000, entry["start_time"])
    with suppress(ResponseError):
        for name, at, latest_ms, *_ in cast("list[Any]", client.execute_command("LATENCY", "LATEST")):
            yield Stall(f"the event {name.decode(errors='replace')}", latest_ms / 1_000, at)


# --- the report ----------------------------------------------------------------------------------


def examine(app: Celery, settings: Settings, broker_url: str) -> list[Finding]:
    """Examine the broker, its waiting messages, the nodes, the server for results, and the outbox. Never raises."""
    if is_redis(broker_url):
        findings: list[Finding] = []
        client: redis.Redis | None = None
        for url in servers_of(broker_url):
            more, found = _examine_server(url, "broker", "TASKAPP_BROKER_URL", own_server(settings))
            findings, client = findings + more, client or found
        if client is not None:
            findings += _named("broker", _examine_tasks(app, settings, client))
    else:
        client = None
        findings = _named("broker", _examine_other(app, broker_url))
    findings += [Finding("app", "settings", *_judged(remark)) for remark in remarks_on(app)]
    result_url = revealed(settings.result_url)
    if result_url and is_redis(result_url) and not (client and _is_same_server(client, result_url)):
        findings += _examine_server(result_url, "results", "TASKAPP_RESULT_URL")[0]
    if (outbox_url := revealed(settings.outbox_url)) is not None:
        findings.append(Finding("outbox", "rows", *outbox(outbox_url)))
    return findings


def _judged(remark: Remark) -> CheckOutcome:
    if remark.weakens:
        return warn(f"{remark.setting}: {remark.text}", "remove it from the app's configuration, unless you want that")
    return ok(f"{remark.setting} has no effect: {remark.text}")


def _named(server: str, outcomes: Iterator[tuple[str, CheckOutcome]]) -> list[Finding]:
    return [Finding(server, check, *outcome) for check, outcome in outcomes]


def _examine_server(
    url: str, server: str, setting: str, own: Path | None = None
) -> tuple[list[Finding], redis.Redis | None]:
    """Run all ``CHECKS`` on one server; return the findings, and a client if the server is reachable."""
    try:
        client = connect(url, setting, own)
        with reachable(url, setting):
            try:
                facts = read_facts(client, url)
            except BusyLoadingError as error:
                raise ServerUnreachable("the server is still loading its data", "wait, then run this again") from error
    except ServerUnreachable as error:
        return [Finding(server, "reachable", *fail(error.found, error.remedy))], None
    outcomes = (("reachable", ok("it answers")), *((name, judge(check, facts)) for name, check in CHECKS.items()))
    return _named(server, iter(outcomes)), client


def _is_same_server(client: redis.Redis, url: str) -> bool:
    try:
        other = connect(url, "").connection_pool.connection_kwargs
    except ServerUnreachable:
        return False
    mine = client.connection_pool.connection_kwargs
    defaults = {"host": "localhost", "port": 6379, "path": None}
    return all(mine.get(name, default) == other.get(name, default) for name, default in defaults.items())


def _examine_other(app: Celery, broker_url: str) -> Iterator[tuple[str, CheckOutcome]]:
    """Yield findings about a broker that is not a single Redis."""
    kind = broker_url.partition("://")[0]
    try:
        with app.connection_for_write(connect_timeout=ANSWER_SECONDS) as connection:
            connection.connect()
    except Exception as error:  # noqa: BLE001 - each transport has errors of its own
        remedy = "start it, or correct TASKAPP_BROKER_URL"
        yield "reachable", fail(f"the broker at {masked(broker_url)} does not answer ({error})", remedy)
        return
    yield "reachable", ok("it answers")
    yield (
        "not checked",
        warn(
            f"{kind}:// is not a single Redis: its {', '.join(CHECKS)} and leases cannot be checked from here",
            "use its own tools (RabbitMQ: `rabbitmq-diagnostics status`; Sentinel: use the primary's redis:// URL)",
        ),
    )
    yield from _examine_nodes(app, None)


def _examine_nodes(app: Celery, leases: tasks.Leases | None) -> Iterator[tuple[str, CheckOutcome]]:
    try:
        answering = _ask_nodes(app, "ping")
    except Exception as error:  # noqa: BLE001 - each transport has errors of its own
        yield "nodes", fail(f"could not ask the nodes: {error}", "fix the problems above, then run this again")
    else:
        yield "nodes", tasks.nodes(sorted(answering), leases, app.argument)


def _examine_tasks(app: Celery, settings: Settings, client: redis.Redis) -> Iterator[tuple[str, CheckOutcome]]:
    """Yield findings about the messages in the broker and the nodes that consume them."""
    try:
        with app.engine() as engine:
            found = read_snapshot(engine.link, engine.prefix, app.queue_names())
        named = Counter(node.name for node in found.nodes if node.name and node.state != "lost")
        shared = tuple(sorted(name for name, number in named.items() if number > 1))
        yield from _examine_nodes(app, _read_leases(client, settings.key_prefix)._replace(shared_names=shared))
        queues = {*(queue.name for queue in found.queues), *_stock_queues(client, settings)}
        waiting = {queue: _waiting(client, settings.key_prefix, queue) for queue in sorted(queues)}
        yield "waiting", tasks.many_waiting(waiting)
        served = dict.fromkeys((*(app.queue_names() if app.ships_task_types else ()), *found.takers()))
        held = Counter(waiting)
        held.update({queue.name: queue.delayed for queue in found.queues})
        yield "other queues", tasks.in_other_queues(tuple(served), held, declares=app.ships_task_types)
        without_node: Counter[str] = Counter()
        for queue in found.queues:
            without_node.update({name: parked.number for name, parked in queue.parked.items()})
        yield "task types", tasks.parked(without_node)
        yield "stock celery", _leftovers(app, settings, client)
    except RedisError as error:
        yield (
            "tasks",
            fail(f"the server refused, or went away: {error}", "allow this user all keys, then run this again"),
        )


def stock_nodes(app: Celery) -> list[str]:
    """Return the nodes that answer within a second and are not taskapp nodes.

    Raises:
        The broker's connection errors.
    """
    replies = _ask_nodes(app, "registered")
    return sorted(node for node, types in replies.items() if OWN_TASK not in types)


def _ask_nodes(app: Celery, question: str) -> dict[str, Any]:
    # Use a separate connection and close it at once: it waits for replies just as a stock worker waits for tasks.
    with app.connection_for_write() as connection:
        inspect = app.control.inspect(timeout=NODES_SECONDS, connection=connection)
        return cast("dict[str, Any]", getattr(inspect, question)() or {})


def _read_leases(client: redis.Redis, key_prefix: str) -> tasks.Leases:
    keys = Keys(key_prefix)
    offset_ms = cast("bytes | None", client.hget(keys("clock"), "offset")) or b"0"
    now_ms = _server_time(client) * 1_000 + float(offset_ms)
    leases = cast("list[tuple[bytes, float]]", client.zrange(keys("leases"), 0, -1, withscores=True))
    ended = [epoch.decode() for epoch, ends_ms in leases if ends_ms <= now_ms]
    held = sum(client.hlen(keys("leased", epoch)) for epoch in ended)
    return tasks.Leases(alive=len(leases) - len(ended), ended=len(ended), held_by_ended=held)


def _leftovers(app: Celery, settings: Settings, client: redis.Redis) -> CheckOutcome:
    held = held_messages(client, settings.key_prefix)
    signs = signs_of_life(client, settings.key_prefix, partial(stock_nodes, app)) if held else []
    return tasks.held_by_stock_workers(held, signs, app.argument)


def _stock_queues(client: redis.Redis, settings: Settings) -> set[str]:
    """Return the queues that a stock app declared on Celery's default exchange."""
    return {binding.queue for binding in bindings(client, settings.key_prefix, STOCK_QUEUE)} | {STOCK_QUEUE}


def _waiting(client: redis.Redis, key_prefix: str, queue: str) -> int:
    with client.pipeline(transaction=False) as pipeline:
        for key in Keys(key_prefix).waiting(queue):
            pipeline.llen(key)
        counts = pipeline.execute(raise_on_error=False)
    return sum(count for count in counts if isinstance(count, int))
