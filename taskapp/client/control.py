"""Celery's remote control, extended to record revoked ids for nodes that start later; others keep them in memory."""

from __future__ import annotations

import logging
from typing import Any
from uuid import UUID

from celery.app import control
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

logger = logging.getLogger(__name__)

NAMING = frozenset({"task_id", "ids"})
"""Arguments of commands that name tasks."""

# The stubs are incomplete.
_Control: Any = control.Control


class Control(_Control):
    """Celery's remote control; see the module."""

    app: Any

    def broadcast(
        self, command: str, arguments: Any = None, destination: Any = None, *rest: Any, **options: Any
    ) -> Any:
        """Send a command to nodes, like Celery; record a ``revoke`` that goes to all of them."""
        arguments = {name: texts_of_ids(ids) if name in NAMING else ids for name, ids in (arguments or {}).items()}
        options |= {name: texts_of_ids(options[name]) for name in NAMING & options.keys()}
        if command == "revoke" and destination is None:
            task_ids = {**arguments, **options}.get("task_id") or ()
            # Before it is sent: a node that starts to listen in between reads the record.
            self._note([task_ids] if isinstance(task_ids, str) else [str(one) for one in task_ids])
        return super().broadcast(command, arguments, destination, *rest, **options)

    def _note(self, task_ids: list[str]) -> None:
        try:
            notes = self.app.open_notes()
            if notes is not None:
                notes.revoked(task_ids)
                notes.close()
        except (RedisError, OSError, OperationalError) as error:
            logger.warning("could not record that %d tasks were revoked: %s", len(task_ids), error)


def texts_of_ids(ids: Any) -> Any:
    """Return one id or several with each ``uuid.UUID`` as text."""
    if isinstance(ids, UUID):
        return str(ids)
    if isinstance(ids, list | tuple | set | frozenset):
        return [str(one) if isinstance(one, UUID) else one for one in ids]
    return ids
