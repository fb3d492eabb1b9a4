"""An app that gives access to its data in Redis; ``resources``, which does the work, is imported on first use."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import celery
from kombu.utils.objects import cached_property

if TYPE_CHECKING:
    from taskapp.app.resources import Engine, Resources
    from taskapp.app.task_types import Celery as AppInterface
    from taskapp.engine.completions import FinishedTasks
    from taskapp.engine.task_notes import Notes
    from taskapp.schedules.store import Schedules
else:
    AppInterface = celery.Celery


class EngineAccess(AppInterface):
    """A Celery app that gives access to its data in Redis; errors are those of ``Resources``."""

    @cached_property
    def resources(self) -> Resources:
        """The app's data in Redis."""
        from taskapp.app.resources import Resources

        return Resources(self)

    def engine(self) -> AbstractContextManager[Engine]:
        """Lend the dead letters and the delayed messages, see ``Resources.engine``."""
        return self.resources.engine()

    def schedules(self) -> AbstractContextManager[Schedules]:
        """Lend the schedules, see ``Resources.schedules``."""
        return self.resources.schedules()

    def finished_tasks(self) -> AbstractContextManager[FinishedTasks]:
        """Lend the stream of finished tasks, see ``Resources.finished_tasks``."""
        return self.resources.finished_tasks()

    def open_notes(self) -> Notes | None:
        """Return the notes on tasks, see ``Resources.open_notes``."""
        return self.resources.open_notes()

    @property
    def keeps_notes(self) -> bool:
        """Whether there is a Redis to store notes on tasks."""
        return self.resources.keeps_notes
