"""One true state for the id of a task, and its log lines.

    from taskapp.monitor.task_state import State, task_state
    if task_state(result.id).state is State.PARKED: ...

``AsyncResult.state`` stays Celery's, where PENDING also means unknown. What is said here comes from the
engine's own keys (where the message is), from the result, and from the notes on the task; so nothing is
missed while nobody watches.
"""

from taskapp.monitor.task_state.log import follow_log, log_lines
from taskapp.monitor.task_state.resolve import task_state
from taskapp.monitor.task_state.states import Moment, State, TaskState

__all__ = ["Moment", "State", "TaskState", "follow_log", "log_lines", "task_state"]
