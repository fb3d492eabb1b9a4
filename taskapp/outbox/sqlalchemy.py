"""The outbox for SQLAlchemy: submits tasks in the transaction of a session, sync or async.

    session.add(order)
    with_session(session).delay(send_receipt, order.id)
    session.commit()                                      # now, and only now, the task will be queued

``metadata`` holds the table, for Alembic: ``target_metadata = [Base.metadata, taskapp.outbox.sqlalchemy.metadata]``.

Raises:
    OutboxPackageMissing: On import: SQLAlchemy is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

from taskapp.errors.outbox import OutboxPackageMissing, UnsupportedOutboxDatabase

if find_spec("sqlalchemy") is None:
    raise OutboxPackageMissing("sqlalchemy", "outbox")

from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import Session, SessionTransaction, registry

from taskapp.outbox import async_prompt
from taskapp.outbox.capture import Captured, What, capture
from taskapp.outbox.eager import run_eagerly
from taskapp.outbox.promptly import Commit, promptly
from taskapp.outbox.rows import OutboxRow
from taskapp.outbox.sql_store import SUPPORTED, SqlStore, is_shared
from taskapp.outbox.tables import metadata, table

__all__ = ["OutboxMessage", "SessionOutbox", "metadata", "table", "with_session"]

PENDING = "taskapp_outbox"
"""Key in ``session.info`` of what waits for its transaction."""


class OutboxMessage:
    """A row, as an object of the session. Give it a bind if your sessions choose engines by class."""

    def __init__(self, row: OutboxRow) -> None:
        for name, value in row._asdict().items():
            setattr(self, name, value)
        self.size = len(row.message)


registry().map_imperatively(OutboxMessage, table)


class SessionOutbox:
    """Submits tasks in the transaction of ``session``; see ``with_session``."""

    def __init__(self, session: Any, app: Any) -> None:
        self._session, self._app = session, app

    def delay(self, task: What, *args: Any, **kwargs: Any) -> Any:
        """Submit ``task(*args, **kwargs)`` with this transaction, see ``apply_async``."""
        return self.apply_async(task, args, kwargs)

    def apply_async(self, task: What, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Submit a task with this transaction; return its result at once, to wait for after the commit.

        Adds a row to the session, which is flushed like any other object: this call does no I/O.

        Args:
            task: A task type, a signature (``add.s(1)``, a chain, a group), or the name of a task type.
            args: Positional arguments; those of a signature follow them.
            kwargs: Keyword arguments.
            options: Options of Celery's ``apply_async``: ``queue``, ``priority``, ``countdown``, ``eta``, ``expires``,
                ``task_id``, ``link`` … A countdown begins now.

        Raises:
            TaskappError: The arguments or options are invalid, as for ``delay()``; nothing was added.
            UnsupportedOutboxDatabase: The session's database cannot hold an outbox.
        """
        captured = capture(task, args, kwargs, options, self._app)
        session = _sync(self._session)
        dialect = session.get_bind(OutboxMessage).dialect.name
        if dialect not in SUPPORTED:
            raise UnsupportedOutboxDatabase(dialect, "relays cannot share its rows")
        session.add_all([OutboxMessage(row) for row in captured.rows])
        _pending(session).add(session, captured)
        return captured.result


def with_session(session: Any, app: Any = None) -> SessionOutbox:
    """Return the outbox in the transaction of ``session``.

    Args:
        session: A ``Session``, a ``scoped_session``, or their async kin.
        app: The app of tasks that are submitted by name; ``None``: Celery's current app.
    """
    return SessionOutbox(session, app)


def _sync(session: Any) -> Session:
    """Return the sync session of ``session`` (a sync one, an async one, or a registry of either)."""
    if not isinstance(session, Session) and hasattr(session, "registry"):
        session = session()
    sync: Session = getattr(session, "sync_session", session)
    return sync


# --- what waits for its transaction -------------------------------------------------------------------


class _Waiting(NamedTuple):
    transaction: SessionTransaction
    """The innermost transaction, which may be a savepoint."""
    captured: Captured


class _Pending:
    """What was added to one session, until its outermost transaction ends."""

    def __init__(self, session: Session) -> None:
        self._waiting: list[_Waiting] = []
        event.listen(session, "after_soft_rollback", self._after_rollback)
        event.listen(session, "after_transaction_end", self._after_end)
        event.listen(session, "after_commit", self._after_commit)

    def add(self, session: Session, captured: Captured) -> None:
        transaction = session.get_nested_transaction() or session.get_transaction() or session.begin()
        self._waiting.append(_Waiting(transaction, captured))

    def _after_rollback(self, _session: Session, ended: SessionTransaction) -> None:
        self._waiting = [each for each in self._waiting if each.transaction is not ended]

    def _after_end(self, _session: Session, ended: SessionTransaction) -> None:
        """Hand what a released savepoint holds to the transaction around it."""
        if ended.parent is None:
            self._waiting = []  # closed without a commit
        else:
            self._waiting = [
                each._replace(transaction=ended.parent) if each.transaction is ended else each for each in self._waiting
            ]

    def _after_commit(self, session: Session) -> None:
        if session.in_nested_transaction():
            return
        waiting, self._waiting = self._waiting, []
        if waiting:
            _relay_soon(session, [each.captured for each in waiting])


def _pending(session: Session) -> _Pending:
    pending: _Pending | None = session.info.get(PENDING)
    if pending is None or pending.__class__ is not _Pending:
        pending = session.info[PENDING] = _Pending(session)
    return pending


def _relay_soon(session: Session, committed: list[Captured]) -> None:
    run_eagerly(committed)
    for each in committed:
        each.committed()
    by_app: dict[int, list[Captured]] = {}
    for each in committed:
        if each.rows:
            by_app.setdefault(id(each.app), []).append(each)
    if not by_app:
        return
    bind: Engine | Connection = session.get_bind(OutboxMessage)
    engine = bind.engine
    if is_shared(engine) and not promptly().is_inline:
        return  # a relay would read and end the transactions of others
    note: Callable[[Commit], None] = async_prompt.note if engine.dialect.is_async else promptly().note
    for same in by_app.values():
        ids = [row.id for each in same for row in each.rows]
        note(Commit(same[0].app, SqlStore(engine), ids))
