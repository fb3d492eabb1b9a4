"""Errors about missing packages that an extra of taskapp installs."""

from __future__ import annotations

from taskapp.errors import TaskappError


class MissingExtra(TaskappError):
    """A feature needs a package of an extra that is not installed."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(what, package, extra)

    def __str__(self) -> str:
        return f"{self.args[0]} needs the package {self.package}; install it with pip install 'taskapp[{self.extra}]'"


class TaskTypeMissesExtra(MissingExtra):
    """A shipped task type is submitted, called or run, but its extra is not installed."""

    def __init__(self, task: str, package: str, extra: str) -> None:
        self.task = task
        super().__init__(task, package, extra)

    def __str__(self) -> str:
        return (
            f"task type {self.task!r} needs the package {self.package}; install it with pip install "
            f"'taskapp[{self.extra}]' (for all task types: 'taskapp[tasks]'); if only the nodes have it, "
            f"submit the task by name: app.send_task({self.task!r}, …)"
        )
