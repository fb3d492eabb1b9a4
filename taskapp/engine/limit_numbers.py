"""Numbers of limits while nodes run: declared by nodes that start, set by people, and what waits for them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from math import isfinite
from typing import NamedTuple

from taskapp.engine.envelope import unseal
from taskapp.engine.retry_budgets import LEAST_RETRIES, RetryBudget
from taskapp.engine.search import Gate, gate_in
from taskapp.redis.keys import Keys
from taskapp.redis.link import Link

OF_RATES, OF_SLOTS = ("limit", "period_ms", "burst"), ("most",)
NUMBERS = (*OF_RATES, *OF_SLOTS)
"""Names of the numbers of a limit, as in ``limits.Rate`` and ``limits.Concurrency``."""
PAGE = 200
LANES_MOST = 2_000
"""Maximum number of lanes to look at for those in which most wait."""
RUNNING_MOST = 5
"""Maximum number of running tasks to name that hold the slots of a key."""


class LimitNumbers(NamedTuple):
    """Numbers of one limit."""

    name: str
    declared: Mapping[str, float]
    """By the node that started last."""
    set: Mapping[str, float]
    """By somebody; these win, one by one, over those declared, which win over those in messages."""


class BlockedLane(NamedTuple):
    """Messages that wait for one key of a limit, in one queue and priority."""

    queue: str
    priority: int
    fair_key: str
    gate: Gate
    """What they wait for."""
    number: int
    """Number of messages."""
    opens_at: float | None
    """When the rate lets the first one start, Unix seconds by the engine's time; ``None``: when a slot is free."""


class BlockedKey(NamedTuple):
    """Messages that wait for one key of a limit, in all queues."""

    gate: Gate
    number: int
    opens_at: float | None
    """As in ``BlockedLane``."""


class LimitsAdmin:
    """Reads and changes limits; errors are those of ``Link``."""

    def __init__(self, link: Link, prefix: str) -> None:
        self._link = link
        self._prefix = prefix
        self._keys = Keys(prefix)

    def read_limits(self) -> dict[str, LimitNumbers]:
        """Return the known numbers by name of the limit."""
        flat = self._link.command("HGETALL", self._keys("limits"))
        found: dict[str, dict[str, Mapping[str, float]]] = {}
        for field, text in zip(flat[::2], flat[1::2], strict=True):
            what, _, name = field.decode(errors="replace").partition(":")
            found.setdefault(name, {})[what] = _numbers_in(text)
        return {
            name: LimitNumbers(name, both.get("declared", {}), both.get("set", {}))
            for name, both in sorted(found.items())
        }

    def set_limit(self, name: str, numbers: Mapping[str, float]) -> None:
        """Set numbers of the limit ``name`` for all nodes until they are cleared; it counts from the next claim on.

        Raises:
            ValueError: A number has an unknown name, or is not above 0.
        """
        check_numbers(numbers)
        self._link.run("limit", self._prefix, 0, "set", name, json.dumps(dict(numbers)))
        self._reopen()

    def clear_limit(self, name: str) -> None:
        """Forget what was set for the limit ``name``: its code decides again."""
        self._link.run("limit", self._prefix, 0, "set", name, "")
        self._reopen()

    def read_weights(self) -> dict[str, float]:
        """Return the weights that were set, by fair key; all others weigh 1."""
        flat = self._link.command("HGETALL", self._keys("weights"))
        return {key.decode(errors="replace"): float(weight) for key, weight in zip(flat[::2], flat[1::2], strict=True)}

    def set_weight(self, fair_key: str, weight: float) -> None:
        """Let ``fair_key`` have ``weight`` turns for each one of a key with weight 1.

        Messages without limits are the fair key ``""``.

        Raises:
            ValueError: ``weight`` is not above 0.
        """
        if not (weight > 0 and isfinite(weight)):
            raise ValueError(f"the weight of {fair_key!r} must be a number above 0, not {weight!r}")
        self._link.command("HSET", self._keys("weights"), fair_key, weight)

    def clear_weight(self, fair_key: str) -> bool:
        """Let ``fair_key`` weigh 1 again; return whether a weight was set."""
        return bool(self._link.command("HDEL", self._keys("weights"), fair_key))

    def pause(self, name: str, key: str, seconds: float, *, is_of_run: bool = False) -> None:
        """Let no task with this key of the rate ``name`` start for ``seconds``, on any node; 0 ends a pause.

        A pause that a run asks for (``is_of_run``) ends no longer one.

        Raises:
            ValueError: ``seconds`` is below 0, or not a number.
        """
        if not (seconds >= 0 and isfinite(seconds)):
            raise ValueError(f"a pause takes 0 seconds or more, not {seconds!r}")
        self._link.run("limit_pause", self._prefix, 0, "run" if is_of_run else "", name, key, round(seconds * 1_000))

    def take_retry(self, task: str, budget: RetryBudget) -> bool:
        """Take one retry from the budget of the type ``task``; return whether it had one left."""
        numbers = (budget.period_ms, budget.most, budget.share, LEAST_RETRIES)
        return bool(self._link.run("retry_budget", self._prefix, 0, task, *numbers))

    def blocked(self, queue: str) -> Iterator[BlockedLane]:
        """Yield the lanes of ``queue`` that wait at a gate, in no order; reads page by page."""
        at = b"0"
        while True:
            at, flat = self._link.command("HSCAN", self._keys("blocked", queue), at, "COUNT", PAGE)
            places, gates = flat[::2], [_text(gate) for gate in flat[1::2]]
            commands: list[tuple[str, ...]] = []
            for place, gate in zip(places, gates, strict=True):
                priority, lane, _ = _text(place).split(":", 2)
                commands.append(("ZCARD", self._keys("lane", queue, f"{priority}:{lane}")))
                commands.append(("ZSCORE", self._keys("gates"), gate))
            answers = self._link.pipeline(commands)
            for place, gate, number, opens in zip(places, gates, answers[::2], answers[1::2], strict=True):
                priority, _, fair_key = _text(place).split(":", 2)
                opens_at = float(opens) / 1_000 if opens else None
                yield BlockedLane(
                    queue, int(priority), "" if fair_key == "\0" else fair_key, gate_in(gate), number, opens_at
                )
            if at == b"0":
                return

    def most_blocked(self, queues: Iterable[str], most: int) -> tuple[list[BlockedKey], bool]:
        """Return up to ``most`` keys for which most messages wait, and whether all keys were looked at.

        Looks at ``LANES_MOST`` lanes, however many there are.
        """
        lanes = (lane for queue in queues for lane in self.blocked(queue))
        numbers: Counter[Gate] = Counter()
        opens: dict[Gate, float | None] = {}
        for lane in islice(lanes, LANES_MOST):
            numbers[lane.gate] += lane.number
            opens[lane.gate] = lane.opens_at
        found = [BlockedKey(gate, number, opens[gate]) for gate, number in numbers.most_common(most) if number]
        return found, next(lanes, None) is None

    def running(self, gate: Gate) -> list[str]:
        """Return the ids of up to ``RUNNING_MOST`` running tasks that hold slots of ``gate``; none for a rate."""
        if gate.kind == "rate":
            return []
        entries = self._link.command("SRANDMEMBER", self._keys("slots", gate.name, gate.key), RUNNING_MOST)
        claims = [_text(entry).partition("|") for entry in entries]
        blobs = self._link.pipeline([("HGET", self._keys("leased", epoch), tag) for epoch, _, tag in claims])
        return sorted(unseal(blob).id for blob in blobs if isinstance(blob, bytes))

    def _reopen(self) -> None:
        """Let what waits look again: its gate may open earlier now."""
        at = b"0"
        while True:
            at = self._link.run("limit_reopen", self._prefix, 0, at)
            if at == b"0":
                return


def check_numbers(numbers: Mapping[str, float]) -> None:
    """Check numbers of a limit.

    Raises:
        ValueError: One has an unknown name, or is not above 0.
    """
    for what, number in numbers.items():
        if what not in NUMBERS:
            raise ValueError(f"a limit has no number {what!r}; it has {', '.join(NUMBERS)}")
        if not isinstance(number, int | float) or isinstance(number, bool) or not (number > 0 and isfinite(number)):
            raise ValueError(f"{what} must be a number above 0, not {number!r}")


def _numbers_in(text: bytes) -> Mapping[str, float]:
    try:
        numbers = json.loads(text)
    except ValueError:
        return {}
    return numbers if isinstance(numbers, dict) else {}


def _text(name: bytes) -> str:
    return name.decode(errors="surrogateescape")
