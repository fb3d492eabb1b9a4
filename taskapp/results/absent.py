"""Result backend of an app that keeps no results."""

from __future__ import annotations

from typing import Any, NoReturn

from celery.backends.base import DisabledBackend

from taskapp.errors.tasks import NoResultsKept

_Disabled: Any = DisabledBackend


class NoResults(_Disabled):
    """Celery's disabled backend; calls that need a result raise an error that names the setting."""

    def _is_disabled(self, *_: Any, **__: Any) -> NoReturn:
        chosen = self.app.backend_cls or self.app.conf.result_backend
        raise NoResultsKept(chosen if isinstance(chosen, str) else "")

    get_task_meta = get_task_meta_for = get_state = get_result = get_traceback = wait_for = get_many = _is_disabled
    ensure_chords_allowed = _is_disabled
