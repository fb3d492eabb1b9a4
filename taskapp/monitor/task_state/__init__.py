"""The one true state of a task, by its id, and its log lines.

    from taskapp.monitor.task_state import State, task_state
    if task_state(result.id).state is State.PARKED: ...

``AsyncResult.state`` stays Celery's, where PENDING also means unknown. The state here is derived from the
engine's keys (where the message is), the result, and the task's notes, so it does not depend on events
that nobody was listening for.
"""

from taskapp.monitor.task_state.log import follow_log, log_lines
from taskapp.monitor.task_state.resolve import task_state
from taskapp.monitor.task_state.states import Moment, State, TaskState, WaitsFor

__all__ = ["Moment", "State", "TaskState", "WaitsFor", "follow_log", "log_lines", "task_state"]
