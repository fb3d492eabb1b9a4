"""Chords: parts are counted when their tasks are settled, and the last one sends the message that ends the chord.

Nothing polls. The message has the task type ``finish_chord``; its run reads the parts and sends
the body, or fails it and sends its errbacks, and all of that is settled with it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from celery import chord, group, states
from celery.app.task import Context
from celery.canvas import maybe_signature
from celery.exceptions import ChordError, SecurityError
from celery.result import GroupResult, allow_join_result, result_from_tuple
from celery.utils.functional import maybe_list
from kombu.exceptions import EncodeError
from kombu.serialization import dumps, loads, prepare_accept_content

from taskapp.celery_internals import Regenerated, errbacks_of
from taskapp.engine.batch import before_push
from taskapp.engine.settlement import Chord, ChordPart, Settlement, collecting, current, settling
from taskapp.errors.wording import shown, text_of
from taskapp.redis.outage import ResultServerGone
from taskapp.results.store import ChordSize, CountedPart, Store
from taskapp.results.trees import leaves
from taskapp.transport.codec import sent_at_of
from taskapp.transport.deadline_header import DEADLINE_HEADER, deadline_in

# Mixed into two backends of Celery, which have no useful common base.
_Mixin: Any = object

FINISH_CHORD = "taskapp.finish_chord"
TRACE_HEADERS = ("traceparent", "tracestate")
"""Trace context headers of the W3C; see ``taskapp.tracing``."""
BEGUN_MOST = 1_000
"""Maximum number of chords of which a process remembers that taskapp began them."""
AS_TASKS = b"\0task "
"""Begins the data of a chord that is in a format of tasks: content type, encoding, and the data on the next line."""
PATIENCE_SECONDS = 4.0
"""How long starting a chord waits for an absent server; inside a task it waits as long as for its result."""

logger = logging.getLogger(__name__)

Part = tuple[int | None, str, str, Any, str | None]
"""Index in the header, task id, state, encoded result, root id."""

LONGEST_DEADLINE_SECONDS = 10**11
"""Others are refused when the header is sent."""


class Chords(_Mixin):
    """Counts parts of chords: with the claim if messages and results share a server, else on the result server."""

    store: Store
    _begun_here: set[str]
    """Ids of chords that taskapp has begun, as far as it was asked."""

    # --- beginning --------------------------------------------------------------------------------

    def apply_chord(self, header_result_args: Any, body: Any, **_: Any) -> None:
        """Begin a chord; Celery sends its header next."""
        chord_id, header = str(header_result_args[0]), header_result_args[1]
        self._keep_deadline(body["options"])
        about = self._written(chord_id, {"body": body, "header": self._shape(chord_id, header)})
        finish = self._finish_message(chord_id) if self._lies_beside_messages else b""
        chord = Chord(chord_id, 0, about, finish, self.chord_expires or 0)
        if (run := current()) is None:
            before_push(lambda: self.store.begin_chord(chord, retry_seconds=PATIENCE_SECONDS))
        elif self._lies_beside_messages:
            run.chords.append(chord)
        else:
            run.external_writes.append(chord)

    def _keep_deadline(self, options: dict[str, Any]) -> None:
        """Give the body the deadline of the whole chord: the task that ends the chord, and sends it, has none."""
        parent = self.app.current_worker_task
        if parent is not None and (deadline := deadline_in(vars(parent.request))) is not None:
            options["headers"] = {**(options.get("headers") or {}), DEADLINE_HEADER: deadline}
        if isinstance(seconds := options.get("deadline"), int | float) and abs(seconds) <= LONGEST_DEADLINE_SECONDS:
            options["deadline"] = (self.app.now() + timedelta(seconds=seconds)).isoformat()  # not from its own submit

    def _written(self, chord_id: str, about: dict[str, Any]) -> bytes:
        """Return the data to keep until the chord's parts are complete; signed if tasks are, since its body is one."""
        if getattr(self.app, "signing", None) is not None:
            return _bytes(dumps({"chord": chord_id, **about}, serializer="auth")[2])
        try:
            return _bytes(self.encode(about))
        except EncodeError:
            # The body is a task: the format of tasks may represent what that of results cannot.
            serializer = about["body"].get("options", {}).get("serializer") or self.app.conf.task_serializer
            content_type, encoding, text = dumps(about, serializer=serializer)
            return b"%s%s %s\n%s" % (AS_TASKS, content_type.encode(), encoding.encode(), _bytes(text))

    def _read(self, chord_id: str, written: bytes) -> Any:
        if getattr(self.app, "signing", None) is None:
            return self._read_as_tasks(written) if written.startswith(AS_TASKS) else self.decode(written)
        known: Any = loads(written, "application/data", "utf-8")
        if known["chord"] != chord_id:
            raise SecurityError(f"the stored data of chord {chord_id} was signed for another chord")
        return known

    def _read_as_tasks(self, written: bytes) -> Any:
        """Return data in a format of tasks, if this app accepts it."""
        head, _, text = written.removeprefix(AS_TASKS).partition(b"\n")
        content_type, encoding = head.decode().split(" ")
        return loads(text, content_type, encoding, accept=prepare_accept_content(self.app.conf.accept_content))

    def set_chord_size(self, group_id: str, chord_size: int) -> None:
        """Set how many parts a chord waits for, before the last task of its header is sent."""
        group_id = str(group_id)
        run, size = current(), ChordSize(group_id, chord_size, self.chord_expires or 0)
        begun = [chord for chord in run.chords if chord.id == group_id] if run is not None else []
        if run is not None and begun:
            run.chords[run.chords.index(begun[-1])] = begun[-1]._replace(size=chord_size)
        elif run is not None and not self._lies_beside_messages:
            run.external_writes.append(size)
        else:
            patience = self._patience_seconds()
            before_push(lambda: self.store.set_chord_size(*size, retry_seconds=patience))

    def add_to_chord(self, chord_id: str, result: Any) -> None:  # noqa: ARG002 - Celery's signature
        """Make a chord wait for one more part."""
        self.store.extend_chord(chord_id, retry_seconds=self._patience_seconds())

    def _patience_seconds(self) -> float:
        return PATIENCE_SECONDS if current() is None else float(self.result_retry_seconds)

    def _shape(self, chord_id: str, header: Any) -> Any:
        """Return the header's results as a tree if they are nested; the parts alone describe a flat header."""
        if isinstance(header, Regenerated) or not any(isinstance(result, GroupResult) for result in header):
            return None
        return self.app.GroupResult(chord_id, header).as_tuple()

    def _finish_message(self, chord_id: str) -> bytes:
        settlement = Settlement()
        with settling(settlement), collecting():
            self._send_finish(chord_id, next(iter(self.app.amqp.queues)))
        return settlement.messages[0].blob

    def _send_finish(self, chord_id: str, queue: str, headers: dict[str, str] | None = None) -> None:
        self.app.send_task(
            FINISH_CHORD, (chord_id,), task_id=f"{chord_id}-finish", queue=queue, ignore_result=True,
            add_to_parent=False, headers=headers,
        )  # fmt: skip

    # --- counting ---------------------------------------------------------------------------------

    def on_chord_part_return(self, request: Any, state: str, result: Any, **options: Any) -> None:
        """Count a part of the chord that ``request`` belongs to."""
        if not request.group or not request.id:
            return
        if not self._is_counted_by_engine(request):
            # Its body is sent at once: Celery forgets the chord before this run is settled.
            with settling(None), collecting():
                super().on_chord_part_return(request, state, result, **options)
            return
        part = (request.group_index, request.id, state, self.encode_result(result, state), request.root_id)
        encoded = _bytes(self.encode(part))
        if state not in states.PROPAGATE_STATES:
            self.size.check_encoded(len(encoded))
        counted = ChordPart(
            request.group, request.id, int(state not in states.PROPAGATE_STATES), encoded, self.chord_expires or 0
        )
        run = current()
        if run is not None and self._lies_beside_messages:
            run.parts.append(counted)
            return
        queue = (request.delivery_info or {}).get("routing_key") or next(iter(self.app.amqp.queues))
        given = getattr(request, "headers", None) or {}
        trace = {header: given[header] for header in TRACE_HEADERS if header in given}
        counted_there = CountedPart(counted, queue, trace or None)
        if run is not None:
            run.external_writes.append(counted_there)
        else:
            self._count(counted_there, retry_seconds=self.result_retry_seconds)

    def _is_counted_by_engine(self, request: Any) -> bool:
        """Return whether taskapp began the chord of ``request``; Celery counts those of stock clients, on all workers.

        Costs a round trip, once for a chord, if the part was not submitted by taskapp, has been retried, or was sent by
        a task, which may itself be a part: a chain in a header goes on from node to node.
        """
        if sent_at_of(request.__dict__) is not None and not request.retries and not request.parent_id:
            return True
        if request.group in self._begun_here:
            return True
        try:
            has_begun = self.store.has_chord(request.group)
        except ResultServerGone:
            return True
        if has_begun:
            if len(self._begun_here) >= BEGUN_MOST:
                self._begun_here.clear()
            self._begun_here.add(request.group)
        return has_begun

    def _count(self, counted: CountedPart, *, retry_seconds: float) -> None:
        part, queue, trace = counted
        if self.store.count_part(part, queue, retry_seconds=retry_seconds):
            self._send_finish(part.chord, queue, trace)

    # --- finishing --------------------------------------------------------------------------------

    def finish_chord(self, chord_id: str) -> None:
        """Send the body of a chord whose parts are complete, or fail it. Running it again sends nothing.

        Raises:
            ResultServerGone: The server is away; try again.
        """
        about, parts = self.store.read_chord(chord_id, retry_seconds=PATIENCE_SECONDS)
        if about is None:
            logger.info("chord %s has already finished or has expired", chord_id)
            return
        known = self._read(chord_id, about)
        body = maybe_signature(known["body"], app=self.app)
        with collecting():
            run = current()
            self._send_body(body, known["header"], [self.decode(part) for part in parts])
        if run is None:
            self.store.forget_chord(chord_id, retry_seconds=self.result_retry_seconds)
        else:
            # On a separate result server, parts that are not deleted stay until they expire.
            run.finished.append(chord_id)

    def forget_finished(self, settlement: Settlement) -> None:
        """Delete the chords whose bodies ``settlement`` has sent; errors are those of ``finish_chord``."""
        for chord_id in settlement.finished:
            self.store.forget_chord(chord_id, retry_seconds=PATIENCE_SECONDS)

    def _send_body(self, body: Any, header: Any, parts: list[Part]) -> None:
        parts.sort(key=lambda part: (part[0] is None, part[0] or 0, part[1]))
        try:
            values = self._values(header, {part[1]: part for part in parts})
        except Exception as error:  # noqa: BLE001 - a task of the header may have failed with anything
            logger.error("a chord fails: %s", text_of(error))
            self._fail_body(body, error if isinstance(error, ChordError) else ChordError(shown(error)))
            return
        try:
            body.apply_async((values,), parent_id=parts[-1][1] if parts else None)
        except Exception as error:  # noqa: BLE001 - sending the body may raise anything
            logger.error("the body of a chord cannot be sent: %s", error)
            if run := current():
                run.drop()
            self._fail_body(body, ChordError(f"Callback error: {shown(error)}"))

    def _fail_body(self, body: Any, error: ChordError) -> None:
        """Fail the body of a chord; called while the error that it fails with is being handled."""
        errbacks = []
        while isinstance(body, chord):
            errbacks += maybe_list(body.options.get("link_error")) or []
            body = maybe_signature(body.body, app=self.app)
        for errback in errbacks:
            body.link_error(errback)
        if isinstance(body, group):
            self._fail_group(body, error.__cause__ or error)
            self._fail_chain(body.options.get("chain"), error)
        else:
            self.chord_error_from_stack(body, error)

    def _fail_group(self, body: Any, error: BaseException) -> None:
        """Fail each task of ``body`` as Celery does, but revoke none: a revocation would precede the stored results."""
        frozen = body.freeze()
        own = dict(errbacks_of(task, self.app) for task in body.tasks)
        shared = maybe_list(body.options.get("link_error")) or []
        for result in leaves(frozen):
            errbacks = [*own.get(result.id, ())]
            errbacks += [errback for errback in shared if errback not in errbacks]
            request = Context({"id": result.id, "errbacks": errbacks, "delivery_info": {}, "task": body.task})
            self._call_task_errbacks(request, error, None)
            self.fail_from_current_stack(result.id, exc=error)
        self.mark_as_failure(frozen.id, error)

    def _values(self, header: Any, parts: dict[str, Part]) -> list[Any]:
        if header is None:
            return [self._value(part) for part in parts.values()]
        tree: Any = result_from_tuple(header, app=self.app)
        return list(self._tree(tree.results, parts))

    def _tree(self, results: Iterable[Any], parts: dict[str, Part]) -> Iterable[Any]:
        for result in results:
            if isinstance(result, GroupResult):
                yield list(self._tree(result.results or (), parts))
            elif result.id in parts:
                yield self._value(parts[result.id])
            else:
                with allow_join_result():
                    yield result.get(timeout=self.app.conf.result_chord_join_timeout)

    def _value(self, part: Part) -> Any:
        return self._unpack_chord_result(part[:4], lambda unpacked: unpacked)


def _bytes(text: str | bytes) -> bytes:
    return text.encode() if isinstance(text, str) else text
