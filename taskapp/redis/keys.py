"""Names of all keys in Redis; no other module contains one.

Keys of one queue share a hash tag, so that they would fall into one slot of a Redis Cluster. Two things rule out a
Cluster today: a claim spans several queues, and kombu's lists above priority 0, from which it adopts, have no tag.

Clients of stock Celery push to kombu's lists, and its workers take from them. Taskapp adopts messages from there, but
pushes its own to lists that no stock worker knows; only replies to remote control go to kombu's.
"""

from __future__ import annotations

import re

from taskapp.queues import LOWEST_PRIORITY, PRIORITIES, SEPARATOR

KEYS: dict[str, str] = {
    # one per deployment
    "leases": "<P>taskapp:leases",  # sorted set: epoch -> when its lease ends
    "probe": "<P>taskapp:probe:<X>",  # what a node may do is tried on these as it begins; gone afterwards
    "clock": "<P>taskapp:clock",  # hash: offset, tick, reap_after, queue_limits (JSON)
    "counts": "<P>taskapp:counts",  # hash: counters of messages that were not run
    "totals": "<P>taskapp:totals",  # hash: totals of task events, see engine/counters.py
    "types": "<P>taskapp:types",  # set: all task types that a node has ever announced
    "total_types": "<P>taskapp:totals:types",  # set: those of them that have their own totals
    "minute": "<P>taskapp:totals:<X>",  # hash by minute since 1970, wall clock: totals by queue, kept for two hours
    "nodes": "<P>taskapp:nodes",  # hash: epoch -> the node's description of itself, JSON
    "queues": "<P>taskapp:queues",  # set: queues that have been submitted to or consumed
    "parked_sweep": "<P>taskapp:parked_sweep",  # hash: who searches for messages parked too long, until when, how far
    "living": "<P>taskapp:parked_sweep:nodes",  # set: epochs whose task types are known to that search
    "living_types": "<P>taskapp:parked_sweep:types",  # set: t:<task type> that they have
    "unreported": "<P>taskapp:untold",  # sorted set: letter -> when a node was asked to fail its task
    "schedules": "<P>taskapp:schedules",  # sorted set, all scores 0: name
    "schedules_due": "<P>taskapp:schedules:due",  # sorted set: name -> when to send its next tick, wall clock
    "schedules_config": "<P>taskapp:schedules:config",  # set: names of schedules from beat_schedule
    "schedules_paused": "<P>taskapp:schedules:paused",  # set: names of schedules that are paused and not broken
    "schedules_broken": "<P>taskapp:schedules:broken",  # set: names of schedules that are set aside
    "schedules_wake": "<P>taskapp:schedules:wake",  # list of at most one token, for the leader
    "calendars": "<P>taskapp:schedules:calendars",  # hash: name -> JSON list of days
    "beat": "<P>taskapp:beat",  # hash: leader, token, until, tick_at, changes
    "finished": "<P>taskapp:finished",  # stream: r -> record of a finished task, see engine/completions.py
    "finished_aside": "<P>taskapp:finished:aside",  # list: unusable records, latest first
    "finished_writer": "<P>taskapp:finished:writer",  # string: name of the history writer
    # one per schedule
    "schedule": "<P>taskapp:schedule:<X>",  # hash: about, revision, due, runs, … see schedules/record.py
    "schedule_runs": "<P>taskapp:schedule:<X>:runs",  # list of JSON: the last ticks, latest first
    "schedule_open": "<P>taskapp:schedule:<X>:open",  # sorted set: <due ms>:<id> of an unfinished tick -> sent at
    # one per tick, on brokers other than Redis
    "tick": "<P>taskapp:tick:<X>",  # hash: copy, run, ended
    # one per node
    "leased": "<P>taskapp:leased:<X>",  # hash: tag -> message
    "node": "<P>taskapp:node:<X>",  # hash: fence, crowd, t:<task type>
    "revoked": "<P>taskapp:revoked",  # sorted set: id of a revoked task -> when
    # one per task that has notes
    "task": "<P>taskapp:task:<X>",  # hash: progress, revoked_at, cancelled_at
    "task_retries": "<P>taskapp:task:<X>:retries",  # list of JSON: runs that ended with a retry
    "task_log": "<P>taskapp:task:<X>:log",  # stream: its last log lines
    "task_logs": "<P>taskapp:task_logs",  # sorted set: id of a task with log lines -> when the last was written
    # one per message of an outbox, for a day
    "relayed": "<P>taskapp:relayed:<X>",  # string: empty; the message <X> has been pushed
    # one per process that writes notes
    "note_writer": "<P>taskapp:scribe:<X>",  # string: number of its last batch
    # one per submitting process
    "producer": "<P>taskapp:producer:<X>",  # string: number of its last push, or "closed"
    "producer_answer": "<P>taskapp:producer:<X>:answer",  # string: JSON of its last push that met a taken unique key
    # one per chord
    "chord": "<P>taskapp:chord:<X>",  # hash: size, extra, about, finish, sent
    "chord_parts": "<P>taskapp:chord:<X>:parts",  # hash: task id -> outcome
    # limits, see lua/lanes.lua; a gate is R or S, name of the limit, key
    "limits": "<P>taskapp:limits",  # hash: declared:<name> and set:<name> -> JSON of numbers
    "weights": "<P>taskapp:limits:weights",  # hash: fair key -> weight
    "gates": "<P>taskapp:limits:gates",  # sorted set: gate of a rate at which lanes wait -> when it opens
    "gate_waiters": "<P>taskapp:limits:gate:<X>",  # sorted set: queue and place of a lane -> when its turn is
    "slot_checks": "<P>taskapp:limits:checks",  # sorted set: gate of slots -> when to compare it with the leases
    "slots": "<P>taskapp:limits:slots:<X>\x1f<Y>",  # set: epoch|tag of the claims that hold a slot
    "rate": "<P>taskapp:limits:rate:<X>\x1f<Y>",  # string: when all is paid for (ms):end of a pause:ms per unit
    "unique": "<P>taskapp:unique:<X>",  # hash: waiting, queue, field, since, running, claim; id, until
    "circuits": "<P>taskapp:circuits",  # sorted set: task type whose circuit is not closed -> since when, wall clock
    "circuit": "<P>taskapp:circuit:<X>",  # hash: until, kind, times if it is not closed; last, row: failures in a row
    "circuit_failures": "<P>taskapp:circuit:<X>\x1f<Y>",  # sorted set by kind of error: claim -> when it failed
    "retry_budget": "<P>taskapp:retry_budget:<X>",  # hash: n or r and a slice of time -> runs or retries in it
    # one per queue
    "ready": "<P>taskapp:{<P><X>}:ready:<Y>",  # list by priority: the next message is at the right end
    "wake": "<P>taskapp:{<P><X>}:wake",  # list of at most one token
    "delayed": "<P>taskapp:{<P><X>}:delayed",  # sorted set: id -> due at
    "delayed_messages": "<P>taskapp:{<P><X>}:delayed:messages",  # hash: id -> message
    "parked": "<P>taskapp:{<P><X>}:parked",  # hash: task type -> since when its oldest message is parked
    "parked_messages": "<P>taskapp:{<P><X>}:parked:<Y>",  # list, by task type
    "dead": "<P>taskapp:{<P><X>}:dead:<Y>",  # sorted set by reason: number -> buried at
    "dead_number": "<P>taskapp:{<P><X>}:dead:number",  # the last number used
    "dead_raw": "<P>taskapp:{<P><X>}:dead:raw",  # hash: number -> the bytes as received
    "dead_about": "<P>taskapp:{<P><X>}:dead:about",  # hash: number -> summary, JSON
    "limited": "<P>taskapp:{<P><X>}:limited",  # hash, if messages with limits wait: last, first, virtual:<priority>, …
    "limited_messages": "<P>taskapp:{<P><X>}:limited:messages",  # hash: id -> message with limits that waits
    "lane": "<P>taskapp:{<P><X>}:lane:<Y>",  # sorted set by priority:lane: id -> sequence number
    "lane_delayed": "<P>taskapp:{<P><X>}:limited:delayed",  # sorted set: id of a message with limits -> due at
    "fair": "<P>taskapp:{<P><X>}:fair:<Y>",  # sorted set by priority: class with a runnable lane -> when its turn is
    "fair_idle": "<P>taskapp:{<P><X>}:fair:<Y>:idle",  # sorted set: class without one -> when its last turn ended
    "runnable": "<P>taskapp:{<P><X>}:runnable:<Y>",  # sorted set by priority:class: lane -> its first sequence number
    "blocked": "<P>taskapp:{<P><X>}:blocked",  # hash: priority:lane:class -> the gate at which it waits
    "opened": "<P>taskapp:{<P><X>}:opened",  # hash: priority:lane:class -> when its gate opened, last message before
    "aside": "<P>taskapp:{<P><X>}:aside:<Y>",  # a key of the wrong type, renamed
    # kombu's, for each queue
    "kombu": "<P><X>",  # list: messages of stock clients at priority 0; replies to remote control
    "kombu_priority": f"<P><X>{SEPARATOR}<Y>",  # list by priority above 0
}
"""Name to pattern; ``<P>`` is the prefix, ``<X>`` and ``<Y>`` are the arguments of ``Keys``."""

_USED_IN_LUA = re.compile(r"key_(\w+)\(")


class Keys:
    """Names of keys under one prefix."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix

    def __call__(self, name: str, x: str = "", y: str = "") -> str:
        """Return the key ``name`` for ``x`` (a queue, an epoch) and ``y`` (a reason, a task type)."""
        return KEYS[name].replace("<P>", self.prefix).replace("<X>", x).replace("<Y>", y)

    def ready(self, queue: str, priority: int = LOWEST_PRIORITY) -> str:
        """Return the name of the ready list of ``queue`` at ``priority``."""
        return self("ready", queue, str(priority))

    def kombu(self, queue: str, priority: int = LOWEST_PRIORITY) -> str:
        """Return the name of kombu's list of ``queue`` at ``priority``, to which clients of stock Celery push."""
        return self("kombu", queue) if priority == LOWEST_PRIORITY else self("kombu_priority", queue, str(priority))

    def waiting(self, queue: str) -> list[str]:
        """Return the names of all lists of ``queue``: ready messages, then those of stock clients, 9 to 0 each."""
        return [name(queue, priority) for name in (self.ready, self.kombu) for priority in reversed(PRIORITIES)]


def lua_names(body: str) -> str:
    """Return definitions of the Lua functions, such as ``key_leased(epoch)``, that ``body`` uses for ``KEYS``."""
    lines = []
    used = set(_USED_IN_LUA.findall(body))
    for name, pattern in KEYS.items():
        if name not in used:
            continue
        parts = pattern.replace("<P>", "\0P\0").replace("<X>", "\0x\0").replace("<Y>", "\0y\0").split("\0")
        names = {"P": "KEYS_PREFIX", "x": "x", "y": "y"}
        joined = " .. ".join(names.get(part) or f"'{part}'" for part in parts if part)
        lines.append(f"local function key_{name}(x, y) return {joined} end")
    return "\n".join(lines) + "\n"
