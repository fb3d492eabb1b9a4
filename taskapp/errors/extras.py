"""Errors of packages that only an extra of taskapp installs."""

from __future__ import annotations

from taskapp.errors import TaskappError


class MissingExtra(TaskappError):
    """Something needs a package that an extra of taskapp brings, and the extra is not installed."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        self.package = package
        self.extra = extra
        super().__init__(what, package, extra)

    def __str__(self) -> str:
        return f"{self.args[0]} needs the package {self.package}; install it with pip install 'taskapp[{self.extra}]'"


class TaskTypeMissesExtra(MissingExtra):
    """A task type that ships is submitted, called or to be run where its extra is not installed."""

    def __init__(self, task: str, package: str, extra: str) -> None:
        self.task = task
        super().__init__(task, package, extra)

    def __str__(self) -> str:
        return (
            f"task type {self.task!r} needs the package {self.package}; install it with pip install "
            f"'taskapp[{self.extra}]' (for all task types: 'taskapp[tasks]'), or, where only the nodes have it, "
            f"submit it by name: app.send_task({self.task!r}, …)"
        )
