"""What a server must be like to hold tasks, one function a check; pure, over what ``read_facts`` saw.

A check raises ``KeyError`` where the server, or the rights of its user, do not tell what it needs.
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
"""A command that holds the server for longer delays every claim and heartbeat."""
RECENT_SECONDS = 3_600.0
"""How far back stalls are told."""
FSYNC = {
    "always": ("ok", "a power loss costs nothing that was confirmed"),
    "everysec": ("ok", "a power loss costs the last second at most"),
    "no": ("warn", "a power loss costs what the kernel had not written, often 30 s"),
}


class CheckOutcome(NamedTuple):
    """What one check found."""

    verdict: Verdict
    found: str
    remedy: str = ""
    """What to do, where the verdict is not ok."""


class Stall(NamedTuple):
    """A time when the server did nothing else."""

    what: str
    seconds: float
    at: float
    """Unix seconds, by the server's clock."""


@dataclass(frozen=True)
class DeploymentFacts:
    """What a server told about itself."""

    url: str = field(repr=False)
    info: Mapping[str, Any]
    """``INFO``; empty where it is not permitted."""
    config: Mapping[str, str]
    """What ``CONFIG GET`` told of some parameters; empty where it is not permitted."""
    round_trips_seconds: tuple[float, ...]
    now_at: float
    """The server's clock."""
    ahead_seconds: float
    """The server's clock less this machine's."""
    is_open: bool
    """Whether it serves clients that give no password."""
    refused_scripting: str
    """Why scripts cannot be run; empty when they can."""
    stalls: tuple[Stall, ...]


def ok(found: str) -> CheckOutcome:
    """Return the outcome of a check that found nothing to mend."""
    return CheckOutcome("ok", found)


def warn(found: str, remedy: str) -> CheckOutcome:
    """Return the outcome for what works and may hurt."""
    return CheckOutcome("warn", found, remedy)


def fail(found: str, remedy: str) -> CheckOutcome:
    """Return the outcome for what loses tasks or does not work."""
    return CheckOutcome("error", found, remedy)


def is_local(url: str) -> bool:
    """Say whether ``url`` leads to this machine without leaving it."""
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
    """Return ``count`` bytes for people."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def speed(facts: DeploymentFacts) -> CheckOutcome:
    """Judge the time of a round trip; each task takes some."""
    median, worst = statistics.median(facts.round_trips_seconds), max(facts.round_trips_seconds)
    shown = f"PING takes {median * 1000:.2f} ms, {worst * 1000:.2f} ms at worst of {len(facts.round_trips_seconds)}"
    if median > SLOW_PING_SECONDS:
        return warn(shown, "run the nodes in the network of the server: each task takes several round trips")
    return ok(shown)


def version(facts: DeploymentFacts) -> CheckOutcome:
    """Judge kind and version."""
    kind, number = "Redis", str(facts.info["redis_version"])
    if "valkey_version" in facts.info:
        kind, number = "Valkey", str(facts.info["valkey_version"])
    numbers = tuple(int(part) for part in re.findall(r"\d+", number)[:2])
    if numbers < OLDEST[kind]:
        needed = ".".join(map(str, OLDEST[kind]))
        return fail(f"{kind} {number}", f"upgrade to {kind} {needed} or newer; commands are missing that tasks need")
    return ok(f"{kind} {number}")


def cluster(facts: DeploymentFacts) -> CheckOutcome:
    """Judge cluster mode: one step spans keys that a cluster keeps on several nodes."""
    if facts.info["cluster_enabled"]:
        return fail(
            "cluster mode is on, which is not supported yet: priorities 1 to 9 of a queue lie in other slots",
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
    """Judge what is left after a restart and after a power loss."""
    if facts.info["aof_enabled"]:
        fsync = facts.config.get("appendfsync")
        if fsync is None:
            return ok("AOF is on; appendfsync could not be read")
        verdict, meaning = FSYNC[fsync]
        found = f"AOF is on, appendfsync {fsync}: {meaning}"
        return ok(found) if verdict == "ok" else warn(found, _setting("appendfsync", "everysec"))
    if facts.config.get("save") == "":
        return warn("none: every waiting task is lost when the server stops", _setting("appendonly", "yes"))
    age_minutes = max(0.0, facts.now_at - facts.info["rdb_last_save_time"]) / 60
    changes = facts.info["rdb_changes_since_last_save"]
    shots = f"`save {facts.config['save']}`" if "save" in facts.config else "if any; their schedule could not be read"
    return warn(
        f"snapshots only ({shots}): a crash now would lose {changes} changes of the last {age_minutes:.0f} minutes",
        _setting("appendonly", "yes"),
    )


def writes(facts: DeploymentFacts) -> CheckOutcome:
    """Judge whether the last write to disk worked; when it did not, Redis refuses tasks."""
    names = ("rdb_last_bgsave_status", "aof_last_bgrewrite_status", "aof_last_write_status")
    broken = [name for name in names if facts.info[name] != "ok"]
    if broken:
        found = ", ".join(f"{name} is {facts.info[name]!r}" for name in broken)
        return fail(found, "see the server's log; make room on its disk and check the rights of its directory")
    return ok("the last writes to disk worked")


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
            "look for who changed it; tasks or results may be gone. CONFIG RESETSTAT forgets the count",
        )
    return ok("maxmemory-policy is noeviction")


def memory(facts: DeploymentFacts) -> CheckOutcome:
    """Judge how full the server is, against its limit or else the machine."""
    used, limit = facts.info["used_memory"], facts.info["maxmemory"]
    if limit:
        found = f"{in_bytes(used)} of maxmemory {in_bytes(limit)} ({used / limit:.0%})"
        remedy = "raise it with `CONFIG SET maxmemory …`, drain the queues, or keep results shorter "
        remedy += "(TASKAPP_RESULT_EXPIRES_SECONDS)"
        if used >= 0.95 * limit:
            return fail(f"{found}: about to refuse new tasks", remedy)
        return warn(found, remedy) if used >= 0.8 * limit else ok(found)
    machine = facts.info["total_system_memory"]
    found = f"{in_bytes(used)}, no maxmemory, of {in_bytes(machine)} of the machine"
    if used > 0.7 * machine:
        return warn(
            f"{found}: the system may kill the server",
            "set a limit with `CONFIG SET maxmemory …`; a full server then refuses new tasks and goes on",
        )
    return ok(found)


def stalls(facts: DeploymentFacts) -> CheckOutcome:
    """Judge what held the server lately."""
    recent = [
        each for each in facts.stalls if each.seconds >= STALL_SECONDS and facts.now_at - each.at < RECENT_SECONDS
    ]
    if not recent:
        return ok(f"nothing held the server for {STALL_SECONDS * 1000:.0f} ms in the last hour, as far as it notes")
    worst = max(recent, key=lambda each: each.seconds)
    ago_minutes = max(0.0, facts.now_at - worst.at) / 60
    return warn(
        f"{len(recent)} times in the last hour something held the server, at worst {worst.what} "
        f"for {worst.seconds * 1000:.0f} ms, {ago_minutes:.0f} minutes ago",
        "see `SLOWLOG GET` and `LATENCY LATEST`; give tasks a server of their own",
    )


def clock(facts: DeploymentFacts) -> CheckOutcome:
    """Judge the server's clock against this machine's."""
    ahead = facts.ahead_seconds
    found = f"the server's clock is {abs(ahead):.3f} s {'ahead of' if ahead >= 0 else 'behind'} this machine's"
    if abs(ahead) > CLOCK_SECONDS:
        return warn(found, "keep both on NTP; due times follow the server's clock, log lines each machine's")
    return ok(found)


def encryption(facts: DeploymentFacts) -> CheckOutcome:
    """Judge who can read along."""
    scheme = urlsplit(facts.url).scheme
    if scheme == "rediss":
        return ok("TLS")
    if is_local(facts.url):
        return ok("no TLS; the connection does not leave this machine")
    return warn(
        "no TLS: whoever is on the way reads tasks and the password",
        "serve TLS (`tls-port 6380`) and set TASKAPP_BROKER_URL to rediss://…, or keep to a private network",
    )


def password(facts: DeploymentFacts) -> CheckOutcome:
    """Judge who may write tasks, which are code to run by name."""
    if not facts.is_open:
        return ok(f"a password is needed; this is user {user_of(facts.url)!r}")
    if is_local(facts.url):
        return ok("no password; fine as long as the server listens on loopback only")
    return fail(
        "no password: whoever reaches the server can send tasks and delete queues",
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
    """Judge whether the server closes connections that wait."""
    seconds = int(facts.config["timeout"])
    if seconds:
        return warn(f"idle clients are closed after {seconds} s; nodes reconnect each time", _setting("timeout", "0"))
    return ok("idle clients are kept")


def scripting(facts: DeploymentFacts) -> CheckOutcome:
    """Judge whether scripts run, with which each step is atomic."""
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
"""Every check of a server, in the order they are shown."""


def judge(check: Callable[[DeploymentFacts], CheckOutcome], facts: DeploymentFacts) -> CheckOutcome:
    """Return what ``check`` found, or that the server does not tell."""
    try:
        return check(facts)
    except KeyError as error:
        return warn(
            f"could not be read: this server does not tell {error.args[0]!r}",
            "allow `INFO` and `CONFIG GET` to this user, or ask who runs the server",
        )
