"""Finished claims on their way to the server: settled in batches, and retried while the server refuses."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from time import monotonic
from typing import Any

from taskapp.engine.counters import CountedRun, counted_fields
from taskapp.engine.heartbeat import named
from taskapp.engine.options import NodeProfile, Options
from taskapp.engine.settlement import STEP_BURY_UNREPORTED, STEP_CLAIM, STEP_RUN
from taskapp.redis.link import REFUSALS, is_denied
from taskapp.redis.pipe import SentScript

logger = logging.getLogger(__name__)

SETTLED_AT_ONCE = 100
STEPS_AT_ONCE = 5_000
"""Number of arguments from which a settle is sent without waiting for others."""
AGAIN_SECONDS = 0.5
STRAGGLER_SECONDS = 0.01
"""Maximum time that a finished claim waits for others."""


class LeaseGone(Exception):
    """Answer to a settle that was never sent, because the lease ended while the connection was broken."""


Effects = tuple[Sequence[Any], CountedRun | None]
"""Effects of a run: steps of the script ``settle``, and the run to count."""
Send = Callable[[str, tuple[Any, ...], Callable[[Any], None]], None]
"""Sends a script with its arguments after the epoch; the last argument gets the answer."""


class SettleBuffer:
    """Finished claims of one epoch. Any thread may add; nothing here waits for Redis.

    Args:
        send: Sends a script for the current epoch.
        keep_watch: Called if a claim waits although the loop may not turn soon; leads to ``flush_stragglers``.
        options: Delivery options.
        role: Gives the node's name, and gets messages that were buried.
    """

    def __init__(self, send: Send, keep_watch: Callable[[], None], options: Options, role: NodeProfile) -> None:
        self._send, self._keep_watch = send, keep_watch
        self._options, self._role = options, role
        self._settled: dict[str, Effects] = {}
        """Tag to the effects of its run."""
        self._refused: list[SentScript] = []
        self._steps = 0
        self._since = 0.0
        self._again_at = 0.0
        self._sending = threading.Lock()
        self.is_denied = False
        """Whether the user of Redis lacked a permission for the last settle; this node should claim no more then."""
        self.batching_thread = 0
        """The thread that calls ``flush`` after each turn of its loop; claims that it adds wait for that."""

    @property
    def are_waiting(self) -> bool:
        """Whether there are claims or calls that the server has not accepted yet."""
        return bool(self._settled or self._refused)

    def tags(self) -> set[str]:
        """Return the tags of all waiting claims and calls."""
        with self._sending:
            refused = {arg for call in self._refused for arg in call.args if isinstance(arg, str)}
            return refused.union(self._settled)

    def forget(self) -> int:
        """Forget all waiting claims, which other nodes now have; return how many had finished here."""
        with self._sending:
            finished, self._settled, self._refused, self._steps = self._settled, {}, [], 0
            self.is_denied = False
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
            # The loop of this node may run a long task next.
            self._keep_watch()

    def flush(self, *, at_once: bool = False) -> None:
        """Send all waiting claims; after a refusal, only once the pause is over or with ``at_once``."""
        if not self.are_waiting or (not at_once and monotonic() < self._again_at):
            return
        with self._sending:
            refused, self._refused = self._refused, []
            settled, self._settled, self._steps = self._settled, {}, 0
            for call in refused:
                self.insist(*call)
            if settled:
                self._role.before_settling()
                self._settle(settled)

    def _settle(self, settled: dict[str, Effects]) -> None:
        """Settle claims together; one that cannot be encoded goes to the dead letters."""
        args: list[Any] = [self._options.dead_letters_limit, self._role.name]
        try:
            for tag, (steps, run) in settled.items():
                args += (STEP_CLAIM, tag, *steps)
                if run is not None:
                    args.append(STEP_RUN)
                    args += counted_fields(run)
            self._send("settle", tuple(args), partial(self._after_settling, settled))
        except Exception as error:
            if len(settled) > 1:
                for tag, effects in settled.items():
                    self._settle({tag: effects})
                return
            (tag,) = settled
            logger.exception("claim %s cannot be settled; its message goes to the dead letters", tag)
            unsent = _failed(f"its outcome cannot be recorded: {type(error).__name__}: {error}")
            if settled[tag] != unsent:
                self._settle({tag: unsent})

    def flush_stragglers(self) -> None:
        """Send claims that have waited long enough, because their thread runs a long task after short ones."""
        if monotonic() >= self._since + STRAGGLER_SECONDS:
            self.flush()

    def insist(self, name: str, args: tuple[Any, ...], on_done: Callable[[Any], None]) -> None:
        """Send a script with its arguments after the epoch, and repeat it while the server refuses."""

        def on_answer(answer: Any) -> None:
            if not isinstance(answer, Exception):
                on_done(answer)
                return
            logger.error("the broker refuses to %s: %s; trying again", name, answer)
            with self._sending:
                self._refused.append(SentScript(name, args, on_done))
            self._wait()

        self._send(name, args, on_answer)

    def _after_settling(self, settled: Mapping[str, Effects], answer: Any) -> None:
        if isinstance(answer, LeaseGone):
            log_stale(settled)
            return
        if isinstance(answer, Exception):
            # The server refuses writes for now: a full disk, a replica.
            self.is_denied = is_denied(answer)
            logger.error("the broker refuses to settle %d claims: %s; trying again", len(settled), answer)
            self._settle_again(settled)
            return
        stale, failed, unreported = answer
        log_stale(stale)
        texts = [part.decode(errors="surrogateescape") for part in failed]
        denied = [problem for problem in texts[2::3] if is_denied(problem)]
        self.is_denied = bool(denied)
        if denied:
            logger.error("the user of Redis may not settle %d claims: %s; trying again", len(denied), denied[0])
        for tag, done, problem in zip(texts[::3], texts[1::3], texts[2::3], strict=True):
            # Redis 6.2 refuses writes from inside a script.
            if is_denied(problem) or problem.startswith(REFUSALS):
                self._settle_again({tag: _rest_of(settled[tag], int(done))})
                continue
            logger.error("claim %s cannot be settled: %s", tag, problem)
            self._settle_again({tag: _failed(problem)})
        if unreported:
            self._role.on_buried(named(unreported))

    def _settle_again(self, settled: Mapping[str, Effects]) -> None:
        with self._sending:
            self._settled = {**settled, **self._settled}
        self._wait()

    def _wait(self) -> None:
        self._again_at = monotonic() + AGAIN_SECONDS
        self._keep_watch()


def _rest_of(effects: Effects, done: int) -> Effects:
    """Return ``effects`` without their first ``done`` arguments, which have been carried out."""
    steps, run = effects
    return steps[done:], run if done <= len(steps) else None


def _failed(problem: str) -> Effects:
    return (STEP_BURY_UNREPORTED, "failed", problem[:2_000]), None


def log_stale(tags: Iterable[bytes | str]) -> None:
    """Log claims that were lost before they were settled."""
    for tag in tags:
        name = tag.decode(errors="surrogateescape") if isinstance(tag, bytes) else tag
        logger.warning("claim %s has gone to another node; its outcome here is discarded", name)
