"""Errbacks that run at once, in the process of the failed task: they find its result stored, as in Celery."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from celery.canvas import maybe_signature
from celery.exceptions import NotRegistered
from redis.exceptions import RedisError

from taskapp.engine.settlement import Settlement, current
from taskapp.results.store import Record, fence_of

# Mixed into two backends of Celery, which have no useful common base.
_Mixin: Any = object

logger = logging.getLogger(__name__)


class Errbacks(_Mixin):
    """Stores the result of a failed run before the step that settles it, for errbacks that run at once."""

    def _call_task_errbacks(self, request: Any, exc: Any, traceback: Any) -> None:
        run = current()
        if run is not None and any(map(self._runs_at_once, request.errbacks)):
            self._store_now(run, request)
        super()._call_task_errbacks(request, exc, traceback)

    def _runs_at_once(self, errback: Any) -> bool:
        """Return whether Celery calls ``errback`` instead of sending it: it takes request, error and traceback."""
        signature: Any = maybe_signature(errback, app=self.app)
        try:
            header = getattr(signature.type, "__header__", None)
        except NotRegistered:
            return False
        if header is None or isinstance(header, partial):
            return False
        return bool(self._errback_arity_greater(signature, 1))

    def _store_now(self, run: Settlement, request: Any) -> None:
        for record in self._collected(run, request):
            try:
                self._write(record, retry_seconds=0)
            except RedisError as error:
                logger.warning("an errback of task %s runs before its result is stored: %s", request.id, error)

    def _collected(self, run: Settlement, request: Any) -> list[Record]:
        """Return the result of ``request``, if ``run`` has collected it; the run stores it again when it is settled."""
        found = [each for each in run.external_writes if isinstance(each, Record) and each.task_id == request.id]
        key = self._task_prefix + request.id.encode()
        fence = fence_of(request, request.id, with_lease=self._keeps_claim(request))
        return found + [
            Record(request.id, key, each.value, each.expires_seconds, is_final=True, fence=fence)
            for each in run.results
            if each.key == key
        ]
