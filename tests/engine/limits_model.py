"""Limits in plain Python: what may start, and who has a unique key."""

from __future__ import annotations

from dataclasses import dataclass, field

from taskapp.engine.limits import Concurrency, Limits, Rate, Unique

QUEUES = ("q1", "q2")
PRIORITIES = (0, 9)
UNIT_MS = 60_000
"""Time is counted in minutes, so that how long a step really takes decides nothing."""
UNSURE = 0.01
"""A rate that opens this near to now may be open or not; none of these does."""
SLOW = Rate("slow", "", 1, 2.31 * UNIT_MS, 2.5)  # type: ignore[arg-type]
DEAR = Rate("dear", "", 1, 1.13 * UNIT_MS, 4, 3)  # type: ignore[arg-type]
VARIANTS = {
    "fair x": Limits("x"),
    "fair y": Limits("y"),
    "plain": Limits(),
    "slow x": Limits("x", (SLOW,)),
    "slow y": Limits("y", (SLOW._replace(key="y"),)),
    "slow and dear": Limits("", (SLOW, DEAR)),
    "two at once": Limits("", (), (Concurrency("cap", "", 2),)),
    "two at once x": Limits("x", (), (Concurrency("cap", "", 2),)),
    "two levels": Limits("y", (), (Concurrency("own", "y", 1), Concurrency("cap", "", 2))),
    "dear and one": Limits("", (DEAR,), (Concurrency("own", "", 1),)),
    "existing": Limits("", (), (), Unique("e")),
    "raise": Limits("x", (SLOW,), (), Unique("r", on_duplicate="raise")),
    "until start": Limits("", (), (Concurrency("cap", "", 2),), Unique("s", "start")),
    "replace": Limits("y", (), (Concurrency("cap", "", 2),), Unique("p", on_duplicate="replace")),
    "latest": Limits("", (), (), Unique("l", on_duplicate="latest")),
}
OFTEN = list(VARIANTS)


@dataclass
class Task:
    """A task with limits."""

    id: str
    body: bytes
    variant: str
    queue: str
    priority: int
    due: float = 0.0

    @property
    def limits(self) -> Limits:
        return VARIANTS[self.variant]

    @property
    def slots(self) -> tuple[Concurrency, ...]:
        unique = self.limits.unique
        if unique is None or unique.on_duplicate != "latest":
            return self.limits.slots
        return (*self.limits.slots, Concurrency("", unique.key, 1))

    @property
    def gates(self) -> set[tuple[str, str]]:
        return {(each.name, each.key) for each in (*self.slots, *self.limits.rates)}

    @property
    def lane(self) -> tuple[str, int, str]:
        return self.queue, self.priority, self.variant


@dataclass
class Model:
    """Where each task is, and what it may do."""

    now: float = 0.0
    lanes: dict[tuple[str, int, str], list[Task]] = field(default_factory=dict)
    delayed: dict[str, list[Task]] = field(default_factory=lambda: {queue: [] for queue in QUEUES})
    running: dict[tuple[str, str], Task] = field(default_factory=dict)
    """By epoch and tag."""
    dead: dict[int, Task] = field(default_factory=dict)
    paid: dict[tuple[str, str], float] = field(default_factory=dict)
    paused: dict[tuple[str, str], float] = field(default_factory=dict)
    starts: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=dict)
    waiting_of: dict[str, str | None] = field(default_factory=dict)
    running_of: dict[str, str | None] = field(default_factory=dict)
    cap: int = 2

    def waiting(self) -> list[Task]:
        return [task for lane in self.lanes.values() for task in lane]

    def all_delayed(self) -> list[Task]:
        return [task for tasks in self.delayed.values() for task in tasks]

    # --- unique keys --------------------------------------------------------------------------------

    def push(self, task: Task) -> tuple[str, str] | None:
        """Queue ``task``; if another has its key, return the outcome and the id of that one instead."""
        unique = task.limits.unique
        if unique is not None:
            waiting, running = self.waiting_of.get(unique.key), self.running_of.get(unique.key)
            latest = unique.on_duplicate == "latest"
            if (other := waiting or running) and not (latest and running and not waiting):
                if waiting and unique.on_duplicate in ("replace", "latest"):
                    [holder] = [each for each in self.waiting() + self.all_delayed() if each.id == waiting]
                    holder.body = task.body
                    return "replaced", waiting
                return "refused" if unique.on_duplicate == "raise" else "existing", other
        self.put(task)
        return None

    def put(self, task: Task, *, in_front: bool = False) -> None:
        if task.due > self.now:
            self.delayed[task.queue].append(task)
        else:
            self.lanes.setdefault(task.lane, []).insert(0 if in_front else len(self.lanes[task.lane]), task)
        unique = task.limits.unique
        if unique is not None and not self.waiting_of.get(unique.key):
            self.waiting_of[unique.key] = task.id

    def forget(self, task: Task) -> None:
        """Take a waiting task away for good."""
        for place in (*self.lanes.values(), *self.delayed.values()):
            if task in place:
                place.remove(task)
        self._free(self.waiting_of, task)

    def leave(self, holder: tuple[str, str]) -> Task:
        """End the claim of a running task."""
        task = self.running.pop(holder)
        self._free(self.running_of, task)
        return task

    def _free(self, keys: dict[str, str | None], task: Task) -> None:
        unique = task.limits.unique
        if unique is not None and keys.get(unique.key) == task.id:
            keys[unique.key] = None

    # --- claims -------------------------------------------------------------------------------------

    def promote(self, queues: tuple[str, ...]) -> None:
        for queue in queues:
            due = sorted(
                (each for each in self.delayed[queue] if each.due <= self.now), key=lambda one: (one.due, one.id)
            )
            for task in due:
                self.delayed[queue].remove(task)
                task.due = 0.0
                self.lanes.setdefault(task.lane, []).append(task)

    def most(self, slot: Concurrency) -> int:
        return self.cap if slot.name == "cap" else slot.most

    def used(self, slot: Concurrency) -> int:
        held = [each for task in self.running.values() for each in task.slots]
        return sum((each.name, each.key) == (slot.name, slot.key) for each in held)

    def opens(self, rate: Rate) -> float:
        key = rate.name, rate.key
        each = rate.period_ms / rate.limit / UNIT_MS
        paid = max(self.paid.get(key, 0.0), self.now)
        return max(paid + each * (rate.cost - max(rate.burst, rate.cost)), self.paused.get(key, 0.0))

    def may_start(self, task: Task) -> bool | None:
        """Return whether ``task`` may start now; ``None``: milliseconds decide."""
        if any(self.used(slot) >= self.most(slot) for slot in task.slots):
            return False
        times = [self.opens(rate) - self.now for rate in task.limits.rates]
        if any(time > UNSURE for time in times):
            return False
        return None if any(abs(time) <= UNSURE for time in times) else True

    def start(self, task: Task, holder: tuple[str, str]) -> None:
        """Let ``task`` start; fail if it must not."""
        lane = self.lanes.get(task.lane, [])
        assert lane, f"{task} was claimed and does not wait"
        assert lane[0] is task, f"{task} was claimed before {lane[0]}"
        assert self.may_start(task) is not False, f"{task} was claimed against its limits"
        lane.pop(0)
        self.running[holder] = task
        for rate in task.limits.rates:
            key = rate.name, rate.key
            self.paid[key] = max(self.paid.get(key, 0.0), self.now) + rate.period_ms / rate.limit / UNIT_MS * rate.cost
            self._check_rate(rate)
        unique = task.limits.unique
        if unique is not None:
            self._free(self.waiting_of, task)
            if unique.until != "start":
                assert not self.running_of.get(unique.key), f"{task} and {self.running_of[unique.key]} run at once"
                self.running_of[unique.key] = task.id

    def _check_rate(self, rate: Rate) -> None:
        history = self.starts.setdefault((rate.name, rate.key), [])
        history.append((self.now, rate.cost))
        units = 0.0
        for at, cost in reversed(history):
            units += cost
            allowed = rate.burst + (self.now - at + UNSURE) * UNIT_MS / rate.period_ms * rate.limit
            assert units <= allowed, f"{units} of {rate} in {self.now - at} minutes"
