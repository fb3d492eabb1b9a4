"""Stands where no results are kept, and says so."""

from __future__ import annotations

from typing import Any, NoReturn

from celery.backends.base import DisabledBackend

from taskapp.errors.tasks import NoResultsKept

_Disabled: Any = DisabledBackend


class NoResults(_Disabled):
    """Celery's backend that keeps nothing; what needs a result names the setting."""

    def _is_disabled(self, *_: Any, **__: Any) -> NoReturn:
        raise NoResultsKept

    get_task_meta = get_task_meta_for = get_state = get_result = get_traceback = wait_for = get_many = _is_disabled
    ensure_chords_allowed = _is_disabled
