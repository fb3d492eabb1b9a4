"""The delivery engine in plain Python: what Redis must hold after every step.

Time is counted in units of a minute of the engine's own time. Messages become due, and leases end,
at halves of a unit, and time moves by whole ones; so how long a step really takes decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from taskapp.engine.counters import CountedRun

UNIT_SECONDS = 60
LEASE_UNITS = 3.5
PARKED_UNITS = 6.5
SILENT_UNITS = LEASE_UNITS / 2
"""Between 1 and 2 units."""

REAPED_AT_ONCE = 10
CRASH_LIMIT = 2
DEAD_LIMIT = 2
GUARD = 4
RUN = CountedRun("run", "completed", 0.3, 0.7)
"""What every end of a claim is counted as."""
RUN_LE, RUN_US, WAIT_LE, WAIT_US = "0.5", 300_000, "1.0", 700_000
QUEUES = ("first", "second")
PRIORITIES = (0, 5, 9)


@dataclass
class Message:
    """A message, whose ``body`` nobody else has."""

    id: str
    task: str
    priority: int
    body: bytes
    deliveries: int = 0
    crashes: int = 0
    ready_at: float | None = None
    """Since when it can run, if that is later than its headers said when it was pushed."""
    either: float | None = None
    """The other moment it may be: milliseconds decide, which the model does not count."""

    @property
    def view(self) -> tuple[str, str, int, int, bytes]:
        """What must be equal on the server wherever it lies."""
        return self.id, self.task, self.deliveries, self.crashes, self.body


@dataclass
class Letter:
    """A dead letter."""

    message: Message
    reason: str
    node: str


@dataclass
class Chord:
    """A chord and the parts that were counted: by slot, ``b"1"`` or ``b"0"`` and a value."""

    size: int
    finish: Message
    parts: dict[str, bytes] = field(default_factory=dict)
    is_sent: bool = False


@dataclass
class Leaves:
    """What a run leaves to be done with the end of its claim."""

    follow_ups: list[tuple[str, str, Message, float]] = field(default_factory=list)
    """Queue, id, message and when it is due."""
    part: tuple[str, str, bytes] | None = None
    """Chord, slot and outcome."""
    finished: str = ""
    """A chord that is not needed any more."""


@dataclass
class Engine:
    """Every place a message can be in, and the operations on them."""

    now: float = 0.0
    ready: dict[tuple[str, int], list[Message]] = field(default_factory=dict)
    """By queue and priority; what is taken next stands first."""
    kombu: dict[tuple[str, int], list[Message]] = field(default_factory=dict)
    """The same, in the lists to which stock clients push."""
    delayed: dict[str, dict[str, tuple[float, Message]]] = field(default_factory=dict)
    parked: dict[str, dict[str, list[tuple[float, Message]]]] = field(default_factory=dict)
    leased: dict[str, dict[str, Message]] = field(default_factory=dict)
    dead: dict[str, dict[int, Letter]] = field(default_factory=dict)
    leases: dict[str, float] = field(default_factory=dict)
    types: dict[str, frozenset[str]] = field(default_factory=dict)
    opened: dict[str, float] = field(default_factory=dict)
    announced: set[str] = field(default_factory=set)
    """The types that a node has had, ever: only these have totals of their own."""
    fences: dict[str, int] = field(default_factory=dict)
    last_number: Counter[str] = field(default_factory=Counter)
    chords: dict[str, Chord] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    totals: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """What happened to tasks, as the engine's fields name it."""
    recent: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """The same, as it is kept by the minute."""
    gone: Counter[str] = field(default_factory=Counter)
    """How many messages are nowhere any more, by what ended them."""
    told: list[tuple[str, str, str, str, int]] = field(default_factory=list)
    """Id, task type, reason, queue and number of what the engine buried by itself: nodes must hear of it."""
    unreported: dict[tuple[str, int], float] = field(default_factory=dict)
    """Queue and number of such letters whose task has not failed yet, and when a node was last asked to fail it."""
    pushed: int = 0
    last_beat: float | None = None
    reap_after: float = float("-inf")

    def __post_init__(self) -> None:
        for queue in QUEUES:
            self.delayed[queue], self.parked[queue], self.dead[queue] = {}, {}, {}
            for priority in PRIORITIES:
                self.ready[queue, priority], self.kombu[queue, priority] = [], []

    # --- coming in --------------------------------------------------------------------------------

    def push(self, queue: str, messages: Iterable[tuple[str, Message]], due: float) -> None:
        for identity, message in messages:
            self.pushed += 1
            if due > self.now:
                self.delayed[queue][identity] = due, message
            else:
                self.ready[queue, message.priority].append(message)

    def push_as_stock(self, queue: str, messages: Iterable[Message]) -> None:
        for message in messages:
            self.pushed += 1
            self.kombu[queue, message.priority].append(message)

    def adopt(self, want: int, queues: Sequence[str], *, from_below: bool) -> None:
        """Move ``want`` messages of stock clients behind the others, in the order of a claim."""
        for queue, priority in levels_of(queues, from_below=from_below):
            waiting = self.kombu[queue, priority]
            while waiting and want > 0:
                self.ready[queue, priority].append(waiting.pop(0))
                want -= 1

    def cancel(self, queue: str, identity: str) -> bool:
        found = self.delayed[queue].pop(identity, None)
        if found is not None:
            self.gone["cancelled"] += 1
            self.counts["cancelled"] += 1
        return found is not None

    def reschedule(self, queue: str, identity: str, due: float) -> bool:
        if identity not in self.delayed[queue]:
            return False
        message = self.delayed[queue][identity][1]
        message.ready_at = due
        self.delayed[queue][identity] = due, message
        return True

    def empty(self, queue: str) -> int:
        waiting = len(self.delayed[queue]) + sum(map(len, self.parked[queue].values()))
        waiting += sum(len(place[queue, priority]) for place in (self.ready, self.kombu) for priority in PRIORITIES)
        self.delayed[queue].clear()
        self.parked[queue].clear()
        for priority in PRIORITIES:
            self.ready[queue, priority].clear()
            self.kombu[queue, priority].clear()
        self.gone["emptied"] += waiting
        return waiting

    # --- claims -----------------------------------------------------------------------------------

    def open(self, epoch: str, types: frozenset[str]) -> None:
        self.leases[epoch] = self.now + LEASE_UNITS
        self.leased[epoch], self.types[epoch], self.opened[epoch] = {}, types, self.now
        self.announced |= types

    def claim(
        self, epoch: str, number: int, want: int, queues: Sequence[str], passed_over: set[str], *, from_below: bool
    ) -> list[tuple[str, Message]] | None:
        """Return what is claimed, by tag; ``None`` when the lease was lost."""
        if epoch not in self.leases:
            return None
        if number <= self.fences.get(epoch, 0):
            return []
        for queue in queues:
            self._promote(queue)
        taken = self._take_parked(epoch, want, queues, passed_over)
        taken += self._take_ready(want - len(taken), queues, passed_over, from_below=from_below)
        tagged = [(f"{number}.{index}:{each.priority}:{queue}", each) for index, (queue, each) in enumerate(taken)]
        self.leased[epoch].update(tagged)
        for queue, message in taken:
            self._tally("received", message.task, queue)
        return tagged

    def _tally(self, what: str, task: str, queue: str) -> None:
        self.totals[what, self._label(task), queue] += 1
        self.recent[what, queue] += 1

    def _label(self, task: str) -> str:
        return task if task in self.announced else "other"

    def _promote(self, queue: str) -> None:
        due = sorted((at, identity) for identity, (at, _) in self.delayed[queue].items() if at <= self.now)
        for _, identity in due:
            _, message = self.delayed[queue].pop(identity)
            self.ready[queue, message.priority].append(message)

    def _take_parked(
        self, epoch: str, want: int, queues: Sequence[str], passed_over: set[str]
    ) -> list[tuple[str, Message]]:
        taken: list[tuple[str, Message]] = []
        for queue in queues:
            for task, items in list(self.parked[queue].items()):
                if task in self.types[epoch] and task not in passed_over:
                    while items and len(taken) < want:
                        taken.append((queue, self._unparked(*items.pop(0), self.opened[epoch])))
                if not items:
                    del self.parked[queue][task]
        return taken

    def _unparked(self, since: float, message: Message, opened: float) -> Message:
        """Return a parked message for a node that was ``opened`` then."""
        if since < opened:
            message.ready_at = opened
        elif since == opened:
            message.either = opened
        return message

    def _take_ready(
        self, want: int, queues: Sequence[str], passed_over: set[str], *, from_below: bool
    ) -> list[tuple[str, Message]]:
        taken: list[tuple[str, Message]] = []
        for queue, priority in levels_of(queues, from_below=from_below):
            waiting = self.ready[queue, priority]
            while waiting and len(taken) < want:
                message = waiting.pop(0)
                if message.task in passed_over:
                    self._park(queue, message.task, message)
                else:
                    taken.append((queue, message))
        return taken

    def next_due(self, queues: Iterable[str]) -> float | None:
        return min((due for queue in queues for due, _ in self.delayed[queue].values()), default=None)

    def recover(self, epoch: str, number: int) -> set[str] | None:
        """Return the tags a living lease holds; claims up to ``number`` shall do nothing from now on."""
        if epoch not in self.leases:
            return None
        self.fences[epoch] = max(number, self.fences.get(epoch, 0))
        return set(self.leased[epoch])

    # --- the end of a claim ------------------------------------------------------------------------

    def settle(self, epoch: str, tag: str, leaves: Leaves) -> bool:
        if tag not in self.leased.get(epoch, {}):
            return False
        self._leave(queue_of(tag), leaves)
        del self.leased[epoch][tag]
        self.gone["settled"] += 1
        return True

    def _leave(self, queue: str, leaves: Leaves) -> None:
        self._tally(RUN.what, RUN.task, queue)
        label = self._label(RUN.task)
        self.totals["run", RUN_LE, label] += 1
        self.totals["run_us", label] += RUN_US
        self.totals["wait", WAIT_LE, queue] += 1
        self.totals["wait_us", queue] += WAIT_US
        self.recent["waits", queue] += 1
        self.recent["wait_us", queue] += WAIT_US
        if leaves.part is not None:
            self._count_part(queue, *leaves.part)
        self.chords.pop(leaves.finished, None)
        for to_queue, identity, message, due in leaves.follow_ups:
            self.push(to_queue, [(identity, message)], due)

    def _count_part(self, queue: str, name: str, slot: str, outcome: bytes) -> None:
        chord = self.chords.get(name)
        if chord is None or chord.is_sent:
            return
        if not chord.parts.get(slot, b"").startswith(b"1"):
            chord.parts[slot] = outcome
        if len(chord.parts) >= chord.size:
            chord.is_sent = True
            chord.finish.ready_at = self.now
            self.pushed += 1
            self.ready[queue, chord.finish.priority].insert(0, chord.finish)

    def requeue(self, epoch: str, tags: Sequence[str], kind: str, due: float, node: str) -> None:
        for tag in reversed(tags):
            message = self.leased.get(epoch, {}).pop(tag, None)
            if message is not None:
                self._give_back(epoch, tag, message, kind, node, due)

    def park(self, epoch: str, tag: str, task: str) -> None:
        message = self.leased.get(epoch, {}).pop(tag, None)
        if message is not None:
            self._park(queue_of(tag), task, message)

    def bury(self, epoch: str, tag: str, reason: str, node: str, leaves: Leaves) -> bool:
        message = self.leased.get(epoch, {}).get(tag)
        if message is not None:
            self._leave(queue_of(tag), leaves)
            del self.leased[epoch][tag]
            self._bury(queue_of(tag), message, reason, node)
        return message is not None

    def close(self, epoch: str) -> None:
        held = self.leased.pop(epoch, {})
        for tag in sorted(held, key=claim_order, reverse=True):
            self._give_back(epoch, tag, held[tag], "unstarted", "", 0)
        self._forget(epoch)

    def _give_back(self, epoch: str, tag: str, message: Message, kind: str, node: str, due: float) -> None:
        message.deliveries += kind != "unstarted"
        if kind == "crashed":
            self._tally("crashed", message.task, queue_of(tag))
            message.crashes += 1
        elif kind == "neighbour":
            message.crashes = max(message.crashes, min(message.crashes + 1, CRASH_LIMIT - 1))
        queue = queue_of(tag)
        if kind == "crashed" and message.crashes >= CRASH_LIMIT:
            self._bury_by_itself(queue, message, "crashed", node)
        elif due > self.now:
            message.ready_at = due
            self.delayed[queue][message.id or epoch + tag] = due, message
        else:
            if kind != "unstarted":
                message.ready_at = self.now
            self.ready[queue, message.priority].insert(0, message)

    def _park(self, queue: str, task: str, message: Message) -> None:
        self.parked[queue].setdefault(task, []).append((self.now, message))

    def _bury_by_itself(self, queue: str, message: Message, reason: str, node: str) -> None:
        self._bury(queue, message, reason, node)
        self._tell(queue, self.last_number[queue], message, reason)

    def _tell(self, queue: str, number: int, message: Message, reason: str) -> None:
        self.unreported[queue, number] = self.now
        self.told.append((message.id, message.task, reason, queue, number))

    def settle_letter(self, queue: str, number: int, leaves: Leaves) -> bool:
        is_unreported = self.unreported.pop((queue, number), None) is not None
        if is_unreported:
            self._leave(queue, leaves)
        return is_unreported

    def _bury(self, queue: str, message: Message, reason: str, node: str) -> None:
        self.last_number[queue] += 1
        self.dead[queue][self.last_number[queue]] = Letter(message, reason, node)
        self.counts[f"buried:{reason}"] += 1
        self._tally("dead", message.task, queue)
        same = [number for number, letter in self.dead[queue].items() if letter.reason == reason]
        if len(same) > DEAD_LIMIT:
            del self.dead[queue][min(same)]
            self.counts[f"dropped:{reason}"] += 1
            self.gone["dropped"] += 1

    def _forget(self, epoch: str) -> None:
        for kept in (self.leases, self.types, self.opened, self.leased, self.fences):
            kept.pop(epoch, None)

    # --- dead letters -----------------------------------------------------------------------------

    def replay(self, queue: str, number: int, to_queue: str) -> bool:
        letter = self.dead[queue].pop(number, None)
        if letter is None:
            return False
        self.unreported.pop((queue, number), None)
        letter.message.deliveries = letter.message.crashes = 0
        letter.message.ready_at = self.now
        self.ready[to_queue, letter.message.priority].append(letter.message)
        self.counts["replayed"] += 1
        return True

    def purge(self, queue: str, numbers: Iterable[int]) -> int:
        purged = [number for number in set(numbers) if self.dead[queue].pop(number, None)]
        self.counts["purged"] += len(purged)
        self.gone["purged"] += len(purged)
        return len(purged)

    # --- the passage of time ----------------------------------------------------------------------

    def beat(self, epoch: str) -> bool:
        """Renew ``epoch`` and reap expired leases; return whether its lease is alive."""
        alive = epoch in self.leases
        if alive:
            self.leases[epoch] = self.now + LEASE_UNITS
        if self.last_beat is not None and self.now - self.last_beat > SILENT_UNITS:
            self.reap_after = self.now + LEASE_UNITS
        self.last_beat = self.now
        if self.now >= self.reap_after:
            ended = sorted((ends, epoch) for epoch, ends in self.leases.items() if ends <= self.now)
            for _, each in ended[:REAPED_AT_ONCE]:
                self._reap(each)
            self._bury_forgotten()
        if alive and self.types[epoch]:
            self._take_over_unreported()
        return alive

    def _take_over_unreported(self) -> None:
        """Only a node that has task types can fail them."""
        for queue, number in [each for each, at in self.unreported.items() if at <= self.now - LEASE_UNITS]:
            letter = self.dead[queue].get(number)
            if letter is None:
                del self.unreported[queue, number]
            else:
                self._tell(queue, number, letter.message, letter.reason)

    def _reap(self, epoch: str) -> None:
        held = self.leased[epoch]
        kind = "crashed" if len(held) == 1 else "neighbour"
        for tag in sorted(held, key=claim_order, reverse=True):
            self._give_back(epoch, tag, held[tag], kind, epoch, 0)
        self.counts["lost_leases"] += 1
        self._forget(epoch)

    def _bury_forgotten(self) -> None:
        for queue in QUEUES:
            for task, items in list(self.parked[queue].items()):
                if any(task in types for types in self.types.values()):
                    continue
                while items and items[0][0] <= self.now - PARKED_UNITS:
                    self._bury_by_itself(queue, items.pop(0)[1], "unknown task", "")
                if not items:
                    del self.parked[queue][task]

    # --- what there is ----------------------------------------------------------------------------

    def snapshot(self) -> dict[str, object]:
        """Return every message by its place, in the form ``observed.observe`` returns."""
        return {
            "ready": {key: [each.view for each in waiting] for key, waiting in self.ready.items() if waiting},
            "kombu": {key: [each.view for each in waiting] for key, waiting in self.kombu.items() if waiting},
            "delayed": {
                queue: [(due, name, message.view) for due, name, message in in_order(items)]
                for queue, items in self.delayed.items()
                if items
            },
            "parked": {
                (queue, task): [message.view for _, message in items]
                for queue, tasks in self.parked.items()
                for task, items in tasks.items()
            },
            "leased": {
                epoch: {tag: message.view for tag, message in held.items()}
                for epoch, held in self.leased.items()
                if held
            },
            "leases": dict(self.leases),
            "types": dict(self.types),
            "fences": dict(self.fences),
            "dead": {
                (queue, number): (letter.reason, letter.node, letter.message.priority, letter.message.view)
                for queue, letters in self.dead.items()
                for number, letter in letters.items()
            },
            "chords": {name: (chord.is_sent, chord.parts) for name, chord in self.chords.items()},
            "unreported": set(self.unreported),
            "ready_at": {
                message.body: message.ready_at
                for message in self.everywhere()
                if message.task and message.ready_at is not None
            },
            "counts": +self.counts,
            "totals": +self.totals,
            "recent": +self.recent,
        }

    def waiting(self) -> int:
        """Return how many messages are ready, parked, or pushed by stock clients."""
        parked = sum(len(items) for tasks in self.parked.values() for items in tasks.values())
        return parked + sum(len(waiting) for place in (self.ready, self.kombu) for waiting in place.values())

    def everywhere(self) -> list[Message]:
        """Return every message there is; each as often as it is somewhere."""
        return [
            *(each for place in (self.ready, self.kombu) for waiting in place.values() for each in waiting),
            *(each for items in self.delayed.values() for _, each in items.values()),
            *(each for tasks in self.parked.values() for items in tasks.values() for _, each in items),
            *(each for held in self.leased.values() for each in held.values()),
            *(letter.message for letters in self.dead.values() for letter in letters.values()),
        ]


def levels_of(queues: Sequence[str], *, from_below: bool) -> list[tuple[str, int]]:
    """Return queues and priorities in the order in which a claim looks at them."""
    levels = [(queue, priority) for queue in queues for priority in sorted(PRIORITIES, reverse=True)]
    return levels[::-1] if from_below else levels


def in_order(items: dict[str, tuple[float, Message]]) -> list[tuple[float, str, Message]]:
    """Return delayed messages as they become due; of those due together the lesser id first."""
    return sorted(((due, name, message) for name, (due, message) in items.items()), key=lambda item: item[:2])


def queue_of(tag: str) -> str:
    """Return the queue a tag names: ``claim.index:priority:queue``."""
    return tag.split(":", 2)[2]


def claim_order(tag: str) -> tuple[int, int]:
    """Return what puts tags in the order in which they were claimed."""
    claim, index = tag.split(":", 1)[0].split(".")
    return int(claim), int(index)


Effect = Callable[[Engine], object]
