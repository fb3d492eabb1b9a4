"""The testing kit for users: tasks run in the test's own process, by a clock that moves when told.

``plugin``     the pytest plugin: the fixtures ``tasks``, ``taskapp_app`` and ``taskapp_worker``
``tasks``      what a test sees and does: ``Tasks``
``records``    ``call``, and the records of tasks and runs
``install``    puts the kit into an app for one test, and everything back
``engine``     the delivery engine in memory; ``transport`` and ``results`` are kombu's and Celery's side of it
``node``       runs a message with the strategy, request and tracer of a real node
``beat``       ticks of ``beat_schedule``
``clock``      the time
``reading``    messages as records; ``internals`` has the private names of Celery and kombu that the kit uses
``worker``     a real node on a server of its own; ``guard`` removes it if the tests are killed

Without pytest, ``in_process(app)`` is a context manager that yields a ``Tasks``. Importing this package imports nothing
else: neither Celery nor an app.
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from taskapp.testing.install import in_process
    from taskapp.testing.records import Run, Submitted, call
    from taskapp.testing.results import ResultNotReady
    from taskapp.testing.tasks import Tasks
    from taskapp.testing.worker import RealWorker, real_worker

__all__ = ["RealWorker", "ResultNotReady", "Run", "Submitted", "Tasks", "call", "in_process", "real_worker"]

_WHERE = {
    "in_process": "install", "Run": "records", "Submitted": "records", "call": "records", "ResultNotReady": "results",
    "Tasks": "tasks", "RealWorker": "worker", "real_worker": "worker",
}  # fmt: skip


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
