"""Checks whether a server is fit to hold tasks: one pure function per check, over the facts of ``read_facts``.

A check raises ``KeyError`` if the server, or the permissions of its user, withhold a fact it needs.
"""

from __future__ import annotations

import ipaddress
import re
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote, urlsplit

Verdict = Literal["ok", "warn", "error"]

OLDEST = {"Redis": (6, 2), "Valkey": (7, 2)}
SLOW_PING_SECONDS = 0.005
CLOCK_SECONDS = 1.0
STALL_SECONDS = 0.1
"""A command that blocks the server for longer delays every claim and heartbeat."""
RECENT_SECONDS = 3_600.0
"""How far back stalls are reported."""
FSYNC = {
    "always": ("ok", "a power loss loses nothing that was confirmed"),
    "everysec": ("ok", "a power loss loses the last second at most"),
    "no": ("warn", "a power loss loses what the kernel has not written yet, often 30 s"),
}


class CheckOutcome(NamedTuple):
    """Result of one check."""

    verdict: Verdict
    found: str
    remedy: str = ""
    """What to do if the verdict is not ok."""


class Stall(NamedTuple):
    """A period when one command or event blocked the server."""

    what: str
    seconds: float
    at: float
    """Unix seconds, by the server's clock."""


@dataclass(frozen=True)
class DeploymentFacts:
    """Facts read from a server."""

    url: str = field(repr=False)
    info: Mapping[str, Any]
    """``INFO``; empty if not permitted."""
    config: Mapping[str, str]
    """Some parameters from ``CONFIG GET``; empty if not permitted."""
    round_trips_seconds: tuple[float, ...]
    now_at: float
    """The server's clock."""
    ahead_seconds: float
    """The server's clock minus this machine's."""
    is_open: bool
    """Whether it serves clients without a password."""
    refused_scripting: str
    """Why scripts cannot run; empty if they can."""
    stalls: tuple[Stall, ...]


def ok(found: str) -> CheckOutcome:
    """Return the outcome of a check that found no problem."""
    return CheckOutcome("ok", found)


def warn(found: str, remedy: str) -> CheckOutcome:
    """Return the outcome for a setup that works but may hurt."""
    return CheckOutcome("warn", found, remedy)


def fail(found: str, remedy: str) -> CheckOutcome:
    """Return the outcome for a setup that loses tasks or does not work."""
    return CheckOutcome("error", found, remedy)


def is_local(url: str) -> bool:
    """Return whether a connection to ``url`` stays on this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme == "unix" or host in ("", "localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def user_of(url: str) -> str:
    """Return the ACL user of ``url``."""
    return unquote(urlsplit(url).username or "") or "default"


def in_bytes(count: int) -> str:
    """Format ``count`` bytes, such as ``1.5 GiB``."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def speed(facts: DeploymentFacts) -> CheckOutcome:
    """Judge the round-trip time; each task takes several round trips."""
    median, worst = statistics.median(facts.round_trips_seconds), max(facts.round_trips_seconds)
    shown = f"PING takes {median * 1000:.2f} ms, {worst * 1000:.2f} ms at worst of {len(facts.round_trips_seconds)}"
    if median > SLOW_PING_SECONDS:
        return warn(shown, "run the nodes in the server's network: each task takes several round trips")
    return ok(shown)


def version(facts: DeploymentFacts) -> CheckOutcome:
    """Judge the server's kind and version."""
    kind, number = "Redis", str(facts.info["redis_version"])
    if "valkey_version" in facts.info:
        kind, number = "Valkey", str(facts.info["valkey_version"])
    numbers = tuple(int(part) for part in re.findall(r"\d+", number)[:2])
    if numbers < OLDEST[kind]:
        needed = ".".join(map(str, OLDEST[kind]))
        return fail(f"{kind} {number}", f"upgrade to {kind} {needed} or newer; it lacks commands that taskapp needs")
    return ok(f"{kind} {number}")


def cluster(facts: DeploymentFacts) -> CheckOutcome:
    """Judge cluster mode: one script touches keys that a cluster keeps on several nodes."""
    if facts.info["cluster_enabled"]:
        return fail(
            "cluster mode is on, which is not supported: priorities 1 to 9 of a queue hash to other slots",
            "point TASKAPP_BROKER_URL at a server with `cluster-enabled no`",
        )
    return ok("cluster mode is off")


def role(facts: DeploymentFacts) -> CheckOutcome:
    """Judge whether the server takes writes."""
    if facts.info["role"] != "master":
        primary = f"{facts.info.get('master_host', '?')}:{facts.info.get('master_port', '?')}"
        return fail("a replica, which refuses writes", f"point TASKAPP_BROKER_URL at its primary, {primary}")
    replicas = facts.info.get("connected_slaves", 0)
    return ok(f"primary with {replicas} replica{'' if replicas == 1 else 's'}")


def persistence(facts: DeploymentFacts) -> CheckOutcome:
    """Judge what survives a restart and a power loss."""
    if facts.info["aof_enabled"]:
        fsync = facts.config.get("appendfsync")
        if fsync is None:
            return ok("AOF is on; appendfsync could not be read")
        verdict, meaning = FSYNC[fsync]
        found = f"AOF is on, appendfsync {fsync}: {meaning}"
        return ok(found) if verdict == "ok" else warn(found, _setting("appendfsync", "everysec"))
    if facts.config.get("save") == "":
        return warn("none: all waiting tasks are lost when the server stops", _setting("appendonly", "yes"))
    age_minutes = max(0.0, facts.now_at - facts.info["rdb_last_save_time"]) / 60
    changes = facts.info["rdb_changes_since_last_save"]
    shots = f"`save {facts.config['save']}`" if "save" in facts.config else "if any; their schedule could not be read"
    return warn(
        f"snapshots only ({shots}): a crash now would lose {changes} changes of the last {age_minutes:.0f} minutes",
        _setting("appendonly", "yes"),
    )


def writes(facts: DeploymentFacts) -> CheckOutcome:
    """Judge whether the last write to disk succeeded; if it did not, Redis refuses tasks."""
    names = ("rdb_last_bgsave_status", "aof_last_bgrewrite_status", "aof_last_write_status")
    broken = [name for name in names if facts.info[name] != "ok"]
    if broken:
        found = ", ".join(f"{name} is {facts.info[name]!r}" for name in broken)
        return fail(found, "see the server's log; free space on its disk and check its directory's permissions")
    return ok("the last writes to disk succeeded")


def eviction(facts: DeploymentFacts) -> CheckOutcome:
    """Judge what the server does when it is full."""
    policy = facts.info["maxmemory_policy"]
    remedy = _setting("maxmemory-policy", "noeviction")
    if policy.startswith("allkeys"):
        return fail(f"maxmemory-policy is {policy}: a full server deletes queues silently", remedy)
    if policy != "noeviction":
        return warn(f"maxmemory-policy is {policy}: a full server deletes results before they expire", remedy)
    if facts.info.get("evicted_keys"):
        return warn(
            f"maxmemory-policy is noeviction, yet {facts.info['evicted_keys']} keys were evicted since the start",
            "find out who changed the policy; tasks or results may be lost. CONFIG RESETSTAT resets the count",
        )
    return ok("maxmemory-policy is noeviction")


def memory(facts: DeploymentFacts) -> CheckOutcome:
    """Judge how full the server is, against its limit or, without one, the machine's memory."""
    used, limit = facts.info["used_memory"], facts.info["maxmemory"]
    if limit:
        found = f"{in_bytes(used)} of maxmemory {in_bytes(limit)} ({used / limit:.0%})"
        remedy = "raise it with `CONFIG SET maxmemory …`, drain the queues, or keep results for a shorter time "
        remedy += "(TASKAPP_RESULT_EXPIRES_SECONDS)"
        if used >= 0.95 * limit:
            return fail(f"{found}: about to refuse new tasks", remedy)
        return warn(found, remedy) if used >= 0.8 * limit else ok(found)
    machine = facts.info["total_system_memory"]
    found = f"{in_bytes(used)} of the machine's {in_bytes(machine)}, no maxmemory"
    if used > 0.7 * machine:
        return warn(
            f"{found}: the system may kill the server",
            "set a limit with `CONFIG SET maxmemory …`; a full server then refuses new tasks and keeps running",
        )
    return ok(found)


def stalls(facts: DeploymentFacts) -> CheckOutcome:
    """Judge recent stalls of the server."""
    recent = [
        each for each in facts.stalls if each.seconds >= STALL_SECONDS and facts.now_at - each.at < RECENT_SECONDS
    ]
    if not recent:
        return ok(f"no stall of {STALL_SECONDS * 1000:.0f} ms or more in the last hour, as far as the server records")
    worst = max(recent, key=lambda each: each.seconds)
    ago_minutes = max(0.0, facts.now_at - worst.at) / 60
    return warn(
        f"{len(recent)} stalls in the last hour, the longest by {worst.what} "
        f"for {worst.seconds * 1000:.0f} ms, {ago_minutes:.0f} minutes ago",
        "see `SLOWLOG GET` and `LATENCY LATEST`; give tasks their own server",
    )


def clock(facts: DeploymentFacts) -> CheckOutcome:
    """Judge the server's clock against this machine's."""
    ahead = facts.ahead_seconds
    found = f"the server's clock is {abs(ahead):.3f} s {'ahead of' if ahead >= 0 else 'behind'} this machine's"
    if abs(ahead) > CLOCK_SECONDS:
        return warn(found, "keep both on NTP; due times follow the server's clock, log lines each machine's")
    return ok(found)


def encryption(facts: DeploymentFacts) -> CheckOutcome:
    """Judge who can read the traffic."""
    scheme = urlsplit(facts.url).scheme
    if scheme == "rediss":
        return ok("TLS")
    if is_local(facts.url):
        return ok("no TLS; the connection does not leave this machine")
    return warn(
        "no TLS: anyone on the network path can read tasks and the password",
        "serve TLS (`tls-port 6380`) and set TASKAPP_BROKER_URL to rediss://…, or use a private network",
    )


def password(facts: DeploymentFacts) -> CheckOutcome:
    """Judge who may write tasks, which name code to run."""
    if not facts.is_open:
        return ok(f"a password is required; connected as user {user_of(facts.url)!r}")
    if is_local(facts.url):
        return ok("no password; fine while the server listens on loopback only")
    return fail(
        "no password: anyone who can reach the server can send tasks and delete queues",
        "ACL SETUSER default '>a long password', in redis.conf `requirepass …`, and put it into TASKAPP_BROKER_URL",
    )


def clients(facts: DeploymentFacts) -> CheckOutcome:
    """Judge how many connections are left."""
    limit = int(facts.info.get("maxclients") or facts.config["maxclients"])
    used = facts.info["connected_clients"]
    found = f"{used} of maxclients {limit}"
    remedy = "raise it with `CONFIG SET maxclients …`; every node and web process holds some connections"
    if used >= 0.95 * limit:
        return fail(found, remedy)
    return warn(found, remedy) if used >= 0.8 * limit else ok(found)


def idle(facts: DeploymentFacts) -> CheckOutcome:
    """Judge whether the server closes idle connections."""
    seconds = int(facts.config["timeout"])
    if seconds:
        return warn(f"idle clients are closed after {seconds} s; nodes reconnect each time", _setting("timeout", "0"))
    return ok("idle clients are kept")


def scripting(facts: DeploymentFacts) -> CheckOutcome:
    """Judge whether scripts run; they make each step atomic."""
    if facts.refused_scripting:
        return fail(f"scripts are refused: {facts.refused_scripting}", f"ACL SETUSER {user_of(facts.url)} +@scripting")
    return ok("EVAL and SCRIPT LOAD work")


def _setting(name: str, value: str) -> str:
    return f"CONFIG SET {name} {value}, and in redis.conf: {name} {value}"


CHECKS: dict[str, Callable[[DeploymentFacts], CheckOutcome]] = {
    "speed": speed,
    "version": version,
    "cluster": cluster,
    "role": role,
    "persistence": persistence,
    "disk": writes,
    "eviction": eviction,
    "memory": memory,
    "stalls": stalls,
    "clock": clock,
    "encryption": encryption,
    "password": password,
    "clients": clients,
    "idle clients": idle,
    "scripting": scripting,
}
"""Every check of a server, in display order."""


def judge(check: Callable[[DeploymentFacts], CheckOutcome], facts: DeploymentFacts) -> CheckOutcome:
    """Run ``check``; warn if the server withholds a fact it needs."""
    try:
        return check(facts)
    except KeyError as error:
        return warn(
            f"could not be read: this server does not report {error.args[0]!r}",
            "allow this user `INFO` and `CONFIG GET`, or ask the administrator of the server",
        )
