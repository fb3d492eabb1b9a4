"""What a test does with tasks: look at those submitted, run those that are due, move the clock, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from taskapp.engine.envelope import unseal
from taskapp.engine.producer import Message
from taskapp.errors import did_you_mean
from taskapp.errors.testing import TooManyRuns
from taskapp.results.chords import FINISH_CHORD
from taskapp.testing.beat import InProcessBeat
from taskapp.testing.clock import Duration, ManualClock, in_seconds
from taskapp.testing.engine import MemoryEngine, MemoryRuntime
from taskapp.testing.node import InProcessNode, original
from taskapp.testing.reading import Reader
from taskapp.testing.records import Run, Submitted, call, name_of, not_submitted
from taskapp.testing.transport import MemoryBroker

RUNS_MOST = 10_000
"""Default for how many tasks one call runs."""
SHOWN_MOST = 5


class Tasks:
    """The tasks of one test. They run in this process, on this thread, when a method or a wait for a result says so.

    Args:
        app: The app under test.
        start_at: The time at which its clock stands, Unix seconds.
        keep_failures: Whether failed tasks do not raise in ``run_due`` and ``advance``.
    """

    def __init__(self, app: Any, start_at: float, *, keep_failures: bool = False) -> None:
        self.app = app
        self.keep_failures = keep_failures
        """Whether failed tasks are only listed in ``failures``; otherwise ``run_due`` raises their errors."""
        self.submitted: list[Submitted] = []
        """Tasks in the order they were submitted: by the test, by tasks, as follow-ups and by the beat; no retries."""
        self.runs: list[Run] = []
        """Runs that have ended, in order."""
        self.queues: tuple[str, ...] = ()
        """The declared queues, in the order in which they are served; others follow."""
        self._clock = ManualClock(start_at)
        self.engine = MemoryEngine(self._clock, lambda: self.queues, self._note)
        """The queues and results."""
        self.broker = MemoryBroker(self.engine, MemoryRuntime(self.engine), self._on_command)
        self._beat = InProcessBeat(app, self.engine)
        self._reader: Reader | None = None
        self._node: InProcessNode | None = None
        self._revoke: Callable[[str, dict[str, Any]], None] = lambda *_: None

    # --- time -----------------------------------------------------------------------------------

    @property
    def now(self) -> datetime:
        """The time of the app, in UTC; tasks that are due run at it."""
        return datetime.fromtimestamp(self._clock.now, UTC)

    def advance(self, duration: Duration, *, keep_failures: bool | None = None, most: int = RUNS_MOST) -> list[Run]:
        """Move the clock, and run each task that becomes due at its own time, in order.

        Args:
            duration: ``"1h"``, ``"90s"``, seconds, or a ``timedelta``.
            keep_failures: See ``run_due``. If a task raises, the clock stays at its time.
            most: The same.

        Returns:
            The runs that ended.

        Raises:
            BadTime: ``duration`` is no duration.
            BackwardsInTime: ``duration`` is negative.
            Exception: As ``run_due``.
        """
        __tracebackhide__ = True
        end_ms = self._clock.now_ms() + round(in_seconds(duration) * 1_000)
        ended = self.run_due(keep_failures=keep_failures, most=most)
        while (due_ms := self._next_due_ms()) is not None and due_ms <= end_ms + 1:
            self._clock.move_to(min(due_ms, end_ms))
            ended += self.run_due(keep_failures=keep_failures, most=most - len(ended))
        self._clock.move_to(end_ms)
        return ended

    def advance_to(self, moment: datetime, *, keep_failures: bool | None = None, most: int = RUNS_MOST) -> list[Run]:
        """Move the clock to ``moment``, a time with an offset; see ``advance``."""
        __tracebackhide__ = True
        seconds = moment.timestamp() - self._clock.now
        return self.advance(seconds, keep_failures=keep_failures, most=most)

    def start_beat(self, *entries: str) -> None:
        """Start a beat: from now on ``advance`` queues the ticks of these entries of ``beat_schedule``, or of all.

        Raises:
            UnknownEntry: ``beat_schedule`` has no such entry.
            BadSchedule: An entry is invalid.
        """
        self._beat.start(entries)

    def _next_due_ms(self) -> int | None:
        return min((due for due in (self.engine.next_due_ms(), self._beat.next_due_ms()) if due), default=None)

    # --- running --------------------------------------------------------------------------------

    def run_due(self, *, keep_failures: bool | None = None, most: int = RUNS_MOST) -> list[Run]:
        """Run every due task, and the follow-ups that are due at once, in the order in which a node takes them.

        Queues come in the order of ``TASKAPP_QUEUES`` and ``task_queues``, then priority 9 before 0, then age.

        Args:
            keep_failures: Do not raise the errors of tasks; ``None``: as ``self.keep_failures`` says.
            most: How many may run.

        Returns:
            The runs that ended.

        Raises:
            Exception: The error of a task that failed, which is no retry; tasks behind it still wait.
            NoSuchTaskType: A message is for a task type that the app does not have.
            TooManyRuns: ``most`` have run, and more are due.
        """
        __tracebackhide__ = True
        keeps = self.keep_failures if keep_failures is None else keep_failures
        ended: list[Run] = []
        while (run := self._run_next()) is not None:
            ended += run
            if run and run[0].state == "FAILURE" and not keeps:
                raise _noted(run[0])
            if len(ended) >= most and self._is_anything_due():
                raise TooManyRuns(most, dict.fromkeys(each.name for each in ended[-SHOWN_MOST:]))
        return ended

    def _run_next(self) -> list[Run] | None:
        """Run the next message; return its run, nothing if it is of the canvas itself, ``None`` if nothing is due."""
        self._beat.tick()
        claimed = self.engine.claim()
        if claimed is None:
            return None
        run = self._node_now().run(claimed)
        if run is None:
            return []
        self.runs.append(run)
        return [run]

    def run_for_a_wait(self) -> bool:
        """Run the next message because somebody waits for a result; return whether there was one."""
        return self._run_next() is not None

    def _is_anything_due(self) -> bool:
        return any(not each.due_ms or self._clock.has_come(each.due_ms) for each in self.engine.waiting())

    def _node_now(self) -> InProcessNode:
        if self._node is None:
            self._node = InProcessNode(self.app, self.broker.channel)
        return self._node

    # --- looking --------------------------------------------------------------------------------

    @property
    def waiting(self) -> list[Submitted]:
        """The tasks in the queues, retries too: those due in the order they will run, then the others by time."""
        read = (self._read(each.queue, each.priority, each.blob) for each in self.engine.waiting())
        return [record for record in read if record is not None]

    @property
    def failures(self) -> list[Run]:
        """The runs that failed."""
        return [run for run in self.runs if run.state == "FAILURE"]

    def clear(self) -> None:
        """Drop what waits, and forget what was submitted and run; results and the time stay."""
        self.engine.purge()
        self.submitted.clear()
        self.runs.clear()

    def assert_submitted(self, task: Any, /, *args: Any, **kwargs: Any) -> Submitted:
        """Assert that a task was submitted with exactly these arguments; without any, with whatever arguments.

        ``unittest.mock.ANY`` stands for any value. Use ``call(task)`` in a comparison for a task without arguments.

        Args:
            task: A task type, its name, or a signature.
            args: Positional arguments, compared as JSON represents them.
            kwargs: The same by name.

        Returns:
            The first such task, to look at its queue, due time and options.
        """
        __tracebackhide__ = True
        found = self._found(task, args, kwargs)
        if not found:
            raise AssertionError(not_submitted(call(task, *args, **kwargs), self.submitted, self._hint(task)))
        return found[0]

    def assert_not_submitted(self, task: Any, /, *args: Any, **kwargs: Any) -> None:
        """Assert the opposite of ``assert_submitted``."""
        __tracebackhide__ = True
        if found := self._found(task, args, kwargs):
            raise AssertionError(
                "\n".join(
                    [f"{name_of(task)} was submitted {_times(len(found))}:", *(f"  {record!r}" for record in found)]
                )
            )

    def _found(self, task: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Submitted]:
        expected = call(task, *args, **kwargs)
        takes_any = not args and not kwargs and not expected.args and not expected.kwargs
        return [
            record for record in self.submitted
            if record == expected or (takes_any and record.name == expected.name)
        ]  # fmt: skip

    def _hint(self, task: Any) -> str:
        name = name_of(task)
        return "" if name in self.app.tasks else f"; the app has no such task type{did_you_mean(name, self.app.tasks)}"

    def shown_waiting(self) -> str:
        """Return the first tasks that wait, with the time until each is due, as text."""
        shown = [
            f"{record.name}[{record.id}]" + (f" due in {record.eta - self.now}" if record.eta else "")
            for record in self.waiting[:SHOWN_MOST]
        ]  # fmt: skip
        return ", ".join(shown)

    # --- for the engine -------------------------------------------------------------------------

    def declare(self, queues: Mapping[str, Any]) -> None:
        """Declare the queues of the app, as a node does."""
        first = self.app.transport_options.get("queue_order") or ()
        self.queues = tuple(dict.fromkeys((*first, *queues)))
        self.broker.channel.declare(queues.values())

    def _note(self, message: Message) -> None:
        record = self._read(message.queue, message.priority, message.blob)
        if record is not None and not record.retries:
            self.submitted.append(record)

    def _read(self, queue: str, priority: int, blob: bytes) -> Submitted | None:
        if unseal(blob).task == FINISH_CHORD:
            return None
        if self._reader is None:
            self._reader = Reader(self.app, self.broker.channel)
        return self._reader.read(queue, priority, blob)

    def _on_command(self, name: str, arguments: dict[str, Any]) -> None:
        self._revoke(name, arguments)

    def on_command(self, take: Callable[[str, dict[str, Any]], None]) -> None:
        """Pass remote-control commands to ``take``."""
        self._revoke = take


def _noted(run: Run) -> BaseException:
    error = original(run.error) if run.error is not None else AssertionError("it failed")
    error.add_note(f"raised by task {run.name}[{run.id}]; keep_failures=True lists it in tasks.failures instead")
    return error


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
