"""Celery's remote control, which notes what was revoked: nodes keep that in memory, and those to come know nothing."""

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

# The stubs lack half of it.
_Control: Any = control.Control


class Control(_Control):
    """Remote control."""

    app: Any

    def broadcast(
        self, command: str, arguments: Any = None, destination: Any = None, *rest: Any, **options: Any
    ) -> Any:
        """Send a command to nodes, as Celery does; note a ``revoke`` that all of them get."""
        arguments = {name: texts_of_ids(ids) if name in NAMING else ids for name, ids in (arguments or {}).items()}
        options |= {name: texts_of_ids(options[name]) for name in NAMING & options.keys()}
        if command == "revoke" and destination is None:
            task_ids = {**arguments, **options}.get("task_id") or ()
            # Before nodes hear of it: who begins to listen in between reads it.
            self._note([task_ids] if isinstance(task_ids, str) else [str(one) for one in task_ids])
        return super().broadcast(command, arguments, destination, *rest, **options)

    def _note(self, task_ids: list[str]) -> None:
        try:
            notes = self.app.open_notes()
            if notes is not None:
                notes.revoked(task_ids)
                notes.close()
        except (RedisError, OSError, OperationalError) as error:
            logger.warning("that %d tasks were revoked could not be noted: %s", len(task_ids), error)


def texts_of_ids(ids: Any) -> Any:
    """Return one id or several as nodes know them, texts; a ``uuid.UUID`` is one."""
    if isinstance(ids, UUID):
        return str(ids)
    if isinstance(ids, list | tuple | set | frozenset):
        return [str(one) if isinstance(one, UUID) else one for one in ids]
    return ids
