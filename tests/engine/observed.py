"""What a real server holds, in the form of ``model.Engine.snapshot``."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from taskapp.engine.counters import BAR
from taskapp.engine.dead_letters import REASONS
from taskapp.engine.envelope import PLAIN, unseal
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link
from taskapp.transport.codec import READY_AT_HEADER, pack_task
from tests.engine.model import PRIORITIES, QUEUES, UNIT_SECONDS

PARKED_HEADER_BYTES = 8
"""In front of a parked message: since when."""
FOUND = [("ready", queue, priority) for queue in QUEUES for priority in PRIORITIES]
BY_QUEUE = ("delayed", "delayed_messages", "parked", "dead_about", "dead_raw", "wake")


class Observer:
    """Reads everything under one prefix; fails on a key that belongs to nothing."""

    def __init__(self, link: Link, prefix: str, base_ms: int, tasks: Sequence[str]) -> None:
        self.link, self.keys, self.base_ms, self.tasks = link, Keys(prefix), base_ms, tasks
        self.tokens: dict[str, int] = {}
        """How many wake tokens each queue has."""
        self._ready_at: dict[bytes, float] = {}

    def units(self, milliseconds: float | bytes) -> float:
        """Return a time of the engine in the model's units."""
        return (float(milliseconds) - self.base_ms) / (UNIT_SECONDS * 1_000)

    def observe(self) -> dict[str, Any]:
        """Return every message by its place."""
        names = [name.decode() for name in self.link.command("KEYS", self.keys.prefix + "*")]
        values = self._read(names)
        leases = values[self.keys("leases")]
        epochs = [epoch.decode() for epoch in leases]
        nodes = {epoch: values.get(self.keys("node", epoch), {}) for epoch in epochs}
        self.tokens = {queue: len(values.get(self.keys("wake", queue), ())) for queue in QUEUES}
        self._check_names(names, epochs)
        self._ready_at = {}
        counts = values.get(self.keys("counts"), {})
        unreported = [letter.decode().split(":", 2) for letter in values.get(self.keys("unreported"), {})]
        return {
            "ready": self._lists(values, self.keys.ready),
            "kombu": self._lists(values, self.keys.kombu),
            "delayed": {queue: found for queue in QUEUES if (found := self._delayed(queue, values))},
            "parked": self._parked(values),
            "leased": {epoch: found for epoch in epochs if (found := self._leased(epoch, values))},
            "leases": {epoch.decode(): self.units(end) for epoch, end in leases.items()},
            "types": {
                epoch: frozenset(name[2:].decode() for name in node if name.startswith(b"t:"))
                for epoch, node in nodes.items()
            },
            "fences": {epoch: int(node[b"fence"]) for epoch, node in nodes.items() if b"fence" in node},
            "dead": {found[0]: found[1] for queue in QUEUES for found in self._dead(queue, values)},
            "chords": dict(self._chords(names, values)),
            "unreported": {(queue, int(number.removesuffix(".0"))) for number, _, queue in unreported},
            "counts": {name.decode(): int(number) for name, number in counts.items() if int(number)},
            "totals": _totals(values.get(self.keys("totals"), {})),
            "recent": sum((_totals(values[name]) for name in names if self._is_minute(name)), Counter()),
            "ready_at": self._ready_at,
        }

    def _view(self, blob: bytes) -> tuple[str, str, int, int, bytes]:
        """Return what of a message the model knows, its body as it was pushed; note since when it can run."""
        envelope = unseal(blob)
        body = envelope.body
        if envelope.version == PLAIN:
            *content, headers, correlation_id, reply_to, exchange, key = msgspec.msgpack.decode(body)
            if (ready_at := headers.pop(READY_AT_HEADER, None)) is not None:
                whole = pack_task(tuple(content), headers, 0, correlation_id, reply_to, exchange, key)
                body = unseal(whole).body
                # To the half of a unit: what passes within a step decides nothing.
                self._ready_at[body] = round(2 * self.units(ready_at * 1_000)) / 2
        return envelope.id, envelope.task, envelope.deliveries, envelope.crashes, body

    def _read(self, names: list[str]) -> dict[str, Any]:
        """Return the values of keys, in Python's own types."""
        names = [*names, self.keys("leases")]
        kinds = [self._kind(name) for name in names]
        answers = self.link.pipeline([command(kind, name) for kind, name in zip(kinds, names, strict=True)])
        for name, answer in zip(names, answers, strict=True):
            assert not isinstance(answer, Exception), f"{name!r}: {answer}"
        return {
            name: dict(zip(answer[::2], answer[1::2], strict=True)) if kind in ("hash", "zset") else answer
            for kind, name, answer in zip(kinds, names, answers, strict=True)
        }

    def _kind(self, name: str) -> str:
        rest = name.removeprefix(self.keys.prefix)
        if not rest.startswith("taskapp:") or rest.endswith(":wake") or re.search(r"\}:(parked|ready):", rest):
            return "list"
        if (
            rest in ("taskapp:leases", "taskapp:untold")
            or rest.endswith("}:delayed")
            or re.search(r"\}:dead:(?!number|raw|about)", rest)
        ):
            return "zset"
        if rest in ("taskapp:queues", "taskapp:types", "taskapp:totals:types"):
            return "set"
        return "string" if rest.startswith("taskapp:producer:") or rest.endswith(":number") else "hash"

    def _is_minute(self, name: str) -> bool:
        return name.removeprefix(self.keys("minute")).isdigit()

    def _check_names(self, names: list[str], epochs: Iterable[str]) -> None:
        """Fail if a key belongs to nothing: what lies there would be lost."""
        known = {name(queue, at) for _, queue, at in FOUND for name in (self.keys.ready, self.keys.kombu)}
        singles = ("leases", "clock", "counts", "queues", "unreported", "totals", "total_types", "types")
        known |= {self.keys(name) for name in singles}
        known |= {name for name in names if self._is_minute(name)}
        known |= {self.keys(name, queue) for name in (*BY_QUEUE, "dead_number") for queue in QUEUES}
        known |= {self.keys("parked_messages", queue, task) for queue in QUEUES for task in self.tasks}
        known |= {self.keys("dead", queue, reason) for queue in QUEUES for reason in REASONS}
        known |= {self.keys(name, epoch) for epoch in epochs for name in ("leased", "node")}
        known |= {each for name in names if ":chord:" in name for each in self._chord_keys(name)}
        strange = [name for name in names if name not in known and ":producer:" not in name]
        assert not strange, f"keys that belong to nothing: {strange}"

    def _chord_keys(self, name: str) -> tuple[str, str]:
        chord = name.removeprefix(self.keys("chord")).removesuffix(":parts")
        return self.keys("chord", chord), self.keys("chord_parts", chord)

    def _chords(self, names: list[str], values: dict[str, Any]) -> Iterable[tuple[str, tuple[bool, dict[str, bytes]]]]:
        """Return each chord by its name: whether its last message was sent, and the parts counted."""
        abouts = [name for name in names if ":chord:" in name and not name.endswith(":parts")]
        halves = [name for name in names if name.endswith(":parts") and name.removesuffix(":parts") not in abouts]
        assert not halves, f"parts of no chord: {halves}"
        for about, parts in map(self._chord_keys, abouts):
            found = {slot.decode(): outcome for slot, outcome in values.get(parts, {}).items()}
            yield about.removeprefix(self.keys("chord")), (b"sent" in values[about], found)

    def _lists(self, values: dict[str, Any], name: Callable[[str, int], str]) -> dict[tuple[str, int], list[Any]]:
        lists = {(queue, priority): values.get(name(queue, priority)) for _, queue, priority in FOUND}
        return {key: [self._view(blob) for blob in reversed(blobs)] for key, blobs in lists.items() if blobs}

    def _delayed(self, queue: str, values: dict[str, Any]) -> list[Any]:
        scores = values.get(self.keys("delayed", queue), {})
        blobs = values.get(self.keys("delayed_messages", queue), {})
        assert scores.keys() == blobs.keys(), f"delayed in {queue!r}: {scores.keys() ^ blobs.keys()} is only half there"
        found = [(self.units(due), name.decode(), self._view(blobs[name])) for name, due in scores.items()]
        return sorted(found, key=lambda each: each[:2])

    def _parked(self, values: dict[str, Any]) -> dict[tuple[str, str], list[Any]]:
        found = {}
        for queue in QUEUES:
            index = values.get(self.keys("parked", queue), {})
            for task in self.tasks:
                items = values.get(self.keys("parked_messages", queue, task), [])
                assert bool(items) == (task.encode() in index), f"parked {task!r} of {queue!r} is not in the index"
                if items:
                    found[queue, task] = [self._view(item[PARKED_HEADER_BYTES:]) for item in reversed(items)]
        return found

    def _leased(self, epoch: str, values: dict[str, Any]) -> dict[str, Any]:
        held = values.get(self.keys("leased", epoch), {})
        return {tag.decode(): self._view(blob) for tag, blob in held.items()}

    def _dead(self, queue: str, values: dict[str, Any]) -> Iterable[tuple[tuple[str, int], Any]]:
        raws = values.get(self.keys("dead_raw", queue), {})
        abouts = values.get(self.keys("dead_about", queue), {})
        indexed = [values.get(self.keys("dead", queue, reason), {}) for reason in REASONS]
        assert raws.keys() == abouts.keys() == {name for index in indexed for name in index}, "a letter is half there"
        for name, raw in raws.items():
            about = json.loads(abouts[name])
            assert name in values[self.keys("dead", queue, about["reason"])]
            envelope = unseal(raw)
            if envelope.version == PLAIN:
                assert (envelope.deliveries, envelope.crashes) == (about["deliveries"], about["crashes"])
            else:
                assert envelope.version == 0, "the bytes are not as they came"
            seen = about["id"], about["task"], about["deliveries"], about["crashes"], self._view(raw)[-1]
            yield (queue, int(name)), (about["reason"], about["node"], about["priority"], seen)


def command(kind: str, name: str) -> tuple[Any, ...]:
    """Return the command that reads all of a key."""
    return {
        "list": ("LRANGE", name, 0, -1),
        "hash": ("HGETALL", name),
        "zset": ("ZRANGE", name, 0, -1, "WITHSCORES"),
        "set": ("SMEMBERS", name),
        "string": ("GET", name),
    }[kind]


def _totals(fields: dict[bytes, bytes]) -> Counter[tuple[str, ...]]:
    """Return what was counted, by the parts of its fields' names."""
    return Counter({tuple(name.decode().split(BAR)): int(number) for name, number in fields.items()})
