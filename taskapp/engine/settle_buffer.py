"""What became of claims, on its way to the engine: told of together, and again as long as the server refuses."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any

from taskapp.engine.counters import CountedRun, step_of
from taskapp.engine.heartbeat import named
from taskapp.engine.options import NodeProfile, Options
from taskapp.redis.link import REFUSALS
from taskapp.redis.pipe import SentScript

logger = logging.getLogger(__name__)

SETTLED_AT_ONCE = 100
STEPS_AT_ONCE = 5_000
"""Arguments of a settle that is not put off any more."""
AGAIN_SECONDS = 0.5
STRAGGLER_SECONDS = 0.01
"""How long a finished claim may wait for others at most."""


class LeaseGone(Exception):
    """The answer to ends that were never sent: the lease ended while the connection was broken."""


Left = tuple[Sequence[Any], CountedRun | None]
"""What a run leaves: steps of the script ``settle``, and what is counted of it."""
Tell = Callable[[str, tuple[Any, ...], Callable[[Any], None]], None]
"""Sends a script its arguments behind the epoch; somebody gets the answer."""


class SettleBuffer:
    """Ends of claims of one epoch. Any thread may add; nothing here waits for Redis.

    Args:
        tell: Sends what is due.
        keep_watch: Called when something waits that no loop may come by for: asks for ``flush_stragglers``.
        options: How the engine delivers.
        role: What the node is called, and who hears of messages that were buried.
    """

    def __init__(self, tell: Tell, keep_watch: Callable[[], None], options: Options, role: NodeProfile) -> None:
        self._tell, self._keep_watch = tell, keep_watch
        self._options, self._role = options, role
        self._settled: dict[str, Left] = {}
        """Tag to what its run left."""
        self._refused: list[SentScript] = []
        self._steps = 0
        self._since = 0.0
        self._again_at = 0.0
        self._sending = threading.Lock()
        self.batching_thread = 0
        """The thread that calls ``flush`` after each turn of its loop; what it adds waits for that."""

    @property
    def are_waiting(self) -> bool:
        """Whether there is something the engine was not told of, or that it is to be told again."""
        return bool(self._settled or self._refused)

    def tags(self) -> set[str]:
        """Return the tags of what waits."""
        with self._sending:
            refused = {arg for call in self._refused for arg in call.args if isinstance(arg, str)}
            return refused.union(self._settled)

    def forget(self) -> int:
        """Forget all that waits: the claims are others' now. Return how many had finished here."""
        with self._sending:
            finished, self._settled, self._refused, self._steps = self._settled, {}, [], 0
        log_stale(finished)
        return len(finished)

    def add(self, tag: str, steps: Sequence[Any], run: CountedRun | None = None) -> None:
        """Settle a claim with ``steps``, see ``Settlement.steps``, and count its ``run``: soon, with others."""
        with self._sending:
            self._settled[tag] = steps, run
            self._steps += len(steps)
            if len(self._settled) == 1:
                self._since = monotonic()
            is_much = len(self._settled) >= SETTLED_AT_ONCE or self._steps >= STEPS_AT_ONCE
        if is_much or self.batching_thread != threading.get_ident():
            self.flush()
        elif self._role.slots is None:
            # Its loop may run a long task next.
            self._keep_watch()

    def flush(self, *, at_once: bool = False) -> None:
        """Tell the engine of what waits; after a refusal only when it is time again, or with ``at_once``."""
        if not self.are_waiting or (not at_once and monotonic() < self._again_at):
            return
        with self._sending:
            refused, self._refused = self._refused, []
            settled, self._settled, self._steps = self._settled, {}, 0
            for call in refused:
                self.insist(*call)
            if settled:
                self._settle(settled)

    def _settle(self, settled: dict[str, Left]) -> None:
        """Settle claims together; one whose end cannot be sent, whatever it holds, goes to the dead letters."""
        args: list[Any] = [self._options.dead_letters_limit, self._role.name]
        try:
            for tag, (steps, run) in settled.items():
                args += ("T", tag, *steps)
                if run is not None:
                    args += step_of(run)
            self._tell("settle", tuple(args), partial(self._after_settling, settled))
        except Exception as error:
            if len(settled) > 1:
                for tag, left in settled.items():
                    self._settle({tag: left})
                return
            (tag,) = settled
            logger.exception("the end of claim %s cannot be sent; its message goes to the dead letters", tag)
            unsent = ("B", "failed", f"its end cannot be recorded: {type(error).__name__}: {error}"[:2_000]), None
            if settled[tag] != unsent:
                self._settle({tag: unsent})

    def flush_stragglers(self) -> None:
        """Tell of what has waited long enough: its thread runs one long task after short ones."""
        if monotonic() >= self._since + STRAGGLER_SECONDS:
            self.flush()

    def insist(self, name: str, args: tuple[Any, ...], on_done: Callable[[Any], None]) -> None:
        """Send a script its arguments behind the epoch, again as long as the server refuses."""

        def on_answer(answer: Any) -> None:
            if not isinstance(answer, Exception):
                on_done(answer)
                return
            logger.error("the broker does not %s: %s; trying again", name, answer)
            with self._sending:
                self._refused.append(SentScript(name, args, on_done))
            self._wait()

        self._tell(name, args, on_answer)

    def _after_settling(self, settled: Mapping[str, Left], answer: Any) -> None:
        if isinstance(answer, LeaseGone):
            log_stale(settled)
            return
        if isinstance(answer, Exception):
            # Of a server that writes nothing for now: a full disk, a replica.
            logger.error("the broker does not settle %d claims: %s; trying again", len(settled), answer)
            self._settle_again(settled)
            return
        stale, failed, unreported = answer
        log_stale(stale)
        texts = [part.decode(errors="surrogateescape") for part in failed]
        for tag, problem in zip(texts[::2], texts[1::2], strict=True):
            logger.error("claim %s cannot be finished: %s", tag, problem)
            # Redis 6.2 refuses inside of a script.
            refuses_all = problem.startswith(REFUSALS)
            self._settle_again({tag: settled[tag] if refuses_all else (("B", "failed", problem[:2_000]), None)})
        if unreported:
            self._role.on_buried(named(unreported))

    def _settle_again(self, settled: Mapping[str, Left]) -> None:
        with self._sending:
            self._settled = {**settled, **self._settled}
        self._wait()

    def _wait(self) -> None:
        self._again_at = monotonic() + AGAIN_SECONDS
        self._keep_watch()


def log_stale(tags: Iterable[bytes | str]) -> None:
    """Say in the log whose claims were lost before their end was told."""
    for tag in tags:
        name = tag.decode(errors="surrogateescape") if isinstance(tag, bytes) else tag
        logger.warning("claim %s had gone to another node; what became of it here changes nothing", name)
