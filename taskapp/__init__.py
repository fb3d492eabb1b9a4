"""taskapp: a distributed task scheduler for Python teams, built on Celery.

The rooms, from the bottom up. Each may import only rooms above it in this list (``pyproject.toml`` has the contract;
``docs/architecture.md`` shows the path of a task through them):

``errors``            the exceptions of taskapp and their wording
``version``           the version of this package
``celery_internals``  every private name of Celery, kombu, billiard and py-amqp that we use, and why
``private_files``     files and directories for their user alone
``urls``              URLs of servers, and the passwords in them
``extras``            which packages each extra brings
``background``        background threads, and values that belong to one process
``recursion``         restores the recursion limit after a task has lowered it
``sql``               SQL databases by URL
``queues``            the queues, their order, and the routes of task types
``env_file``          finds the ``.env`` file
``sanitize``          makes text from tasks harmless for a terminal
``log_message``       the text of a log record, even of one that cannot be formatted
``setting_values``    how the text of a variable becomes the value of a setting
``settings``          ``TASKAPP_*`` and ``.env``, as one validated, frozen object
``devredis``          the embedded Redis server, for development, demo and tests
``processes``         child programs: started, supervised, stopped
``schemes``           which URL schemes the broker and the results can have
``redis``             key names, Lua scripts and connections
``engine``            delivery: leases, claims, settling, delayed and dead messages; knows neither Celery nor kombu
``migrate``           moving from stock Celery
``transport``         the engine as a kombu transport, and kombu's RabbitMQ transport with limits
``results``           Celery's result backends, fenced
``client``            the submitting side: from ``delay()`` to the engine, and results awaited in coroutines
``outbox``            tasks submitted in a transaction of the user's own database
``schedules``         when timed jobs are due, and which beat queues them
``tracing``           OpenTelemetry spans
``logs``              log lines, their format, and the thread that writes them
``probes``            state files of nodes and beats, and ``taskapp health``, which reads them
``execution``         what a run needs wherever it takes place
``app``               the Celery application and the base class of tasks
``worker``            a node: ``consume`` (message to request), ``pool`` (slots), ``run`` (one run), start and drain
``beat``              what ``celery beat`` runs
``loader``            turns the app of a project that cannot be edited into one of taskapp
``testing``           the kit for users' tests: a pytest plugin, the engine in memory, a real node on its own server
``celery``            the application of ``celery -A taskapp``; the only module that wires parts together
``tasks``             the task types that ship
``monitor``           metrics, exporter, history, Flower's tabs, doctor, the state of a task
``django``            the Django app: the outbox in Django's transactions
``flask``             taskapp in a Flask application
``asgi``              taskapp in an ASGI application, such as one of FastAPI
``demo``              the main job on real data, from server start to e-mail
``cli``               the ``taskapp`` command, one file per command group

Importing this package imports nothing else; the names below are imported when they are first used:

    from taskapp import Celery

    app = Celery("proj")
"""

from __future__ import annotations

from taskapp.version import __version__

TYPE_CHECKING = False  # that of ``typing`` takes longer to import than the rest of ``taskapp health``

if TYPE_CHECKING:
    from taskapp.app.application import Celery
    from taskapp.app.retries import Backoff
    from taskapp.app.task_types import Task, shared_task
    from taskapp.client.async_canvas import Signature, chain, chord, group, signature
    from taskapp.client.limits.circuit_breaker import CircuitBreaker
    from taskapp.client.results import AsyncResult, GroupResult

__all__ = [
    "AsyncResult", "Backoff", "Celery", "CircuitBreaker", "GroupResult", "Signature", "Task", "__version__", "chain",
    "chord", "group", "shared_task", "signature",
]  # fmt: skip


_HOMES = {
    "taskapp.app.application": ("Celery",),
    "taskapp.app.retries": ("Backoff",),
    "taskapp.app.task": ("Task",),
    "taskapp.client.async_canvas": ("Signature", "chain", "chord", "group", "signature"),
    "taskapp.client.limits.circuit_breaker": ("CircuitBreaker",),
    "taskapp.client.results": ("AsyncResult", "GroupResult"),
    "celery": ("shared_task",),
}


def __getattr__(name: str) -> object:
    for module, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(module), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
