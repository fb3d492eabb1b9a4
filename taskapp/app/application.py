"""The application: Celery's, with taskapp's submits, connections and results.

A process that imports task types imports this module, too. Code that submits tasks, waits for results or reads queues
is imported on first use: a web application that starts, or a command that prints its help, needs none of it.
"""

from __future__ import annotations

import logging
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import celery as stock
from celery import signals
from celery.utils.imports import symbol_by_name
from kombu.utils.objects import cached_property

from taskapp.app.hooks import add_own_task_types, preload_options, task_class
from taskapp.app.submitting import Submitting
from taskapp.background import in_child
from taskapp.celery_internals import default_app, is_current, on_app_finalize
from taskapp.client.control_clock import ControlClock
from taskapp.errors.signing import SigningPackageMissing

if TYPE_CHECKING:
    pass

logger = logging.getLogger(__name__)

STOCK_TASK_CLASSES = ("celery.app.task:Task", "celery.contrib.django.task:DjangoTask")

_apps: WeakSet[Celery] = WeakSet()


class Celery(Submitting):
    """Celery's app on taskapp's engine: ``from taskapp import Celery`` in place of ``from celery import Celery``.

    The project's configuration wins; ``TASKAPP_…`` settings configure the engine; what neither sets has safe defaults,
    see ``configuration``. It checks submits at the caller and looks for its broker when it first needs one.
    """

    loader_cls = "taskapp.app.loader:TaskLoader"  # strings, because Celery's Django fixup searches this one
    amqp_cls = "taskapp.app.amqp:Amqp"
    control_cls = "taskapp.client.control:Control"
    events_cls = "taskapp.worker.consume.events:Events"
    log_cls = "taskapp.logs.setup:Logging"
    registry_cls = "taskapp.app.registry:Registry"
    builtin_fixups = {"taskapp.app.django_fixup:fixup"}  # noqa: RUF012 - Celery's attribute

    _finalize_mutex: threading.RLock
    _pool: Any
    _unusable_for: Exception | None = None
    finalized: bool

    def __init__(self, *args: Any, task_cls: Any = None, **options: Any) -> None:
        self.signing = None
        is_custom = task_cls is not None or type(self).task_cls is not stock.Celery.task_cls
        options["task_cls"] = task_cls if is_custom else task_class()
        super().__init__(*args, **options)
        self._add_own_parts()

    def _add_own_parts(self) -> None:
        self.clock = ControlClock()
        self.user_options["preload"] |= preload_options()
        self.on_after_finalize.connect(add_own_task_types, weak=False)
        _apps.add(self)

    def settle_in(self) -> None:
        """Complete an app that stock Celery's constructor made, and whose configuration is being loaded."""
        self.signing = None
        if self.task_cls in STOCK_TASK_CLASSES:
            self.task_cls = task_class()
        self.registry_cls = registry = symbol_by_name(type(self).registry_cls)
        known, self._tasks = self._tasks, registry()
        for name, task in known.items():
            self._tasks[name] = task
        self._add_own_parts()
        self._pending_defaults.append(lambda: self.filled.fill(self))
        # Types that were registered before are bound by stock Celery's method; now that the configuration is there, by
        # ours.
        self.on_after_configure.connect(_bind_again, weak=False)
        if is_default_app_free():
            self.set_default()

    def set_current(self) -> None:
        """Make this the app of ``@shared_task`` in this thread, and in all threads if no other app is that yet.

        Celery leaves other threads without an app, so that a web server's threads would submit to a default one.
        """
        super().set_current()
        if is_default_app_free():
            self.set_default()

    def finalize(self, auto: bool = False) -> None:  # noqa: FBT001, FBT002 - Celery's signature
        """Finalize the app like Celery; if a setting or a task type prevents that, raise the same error each time.

        Celery raises it once and continues with the task types it had found until then.
        """
        with self._finalize_mutex:
            if self._unusable_for is not None:
                raise self._unusable_for.with_traceback(None)
            is_first = not self.finalized
            try:
                super().finalize(auto)
            except Exception as error:
                if is_first and self.finalized:
                    self._unusable_for = error
                raise

    def setup_security(
        self, allowed_serializers: Any = None, key: str | None = None, key_password: Any = None,
        cert: str | None = None, store: str | None = None, digest: str | None = None,
        serializer: str = "json",
    ) -> Any:  # fmt: skip
        """Sign tasks and accept only signed ones, like Celery; also sign their headers, see ``client.signing``.

        Raises:
            celery.exceptions.ImproperlyConfigured: A ``security_…`` setting is missing, ``task_serializer`` is not
                ``auth`` or ``accept_content`` is not ``["auth"]``.
            SigningPackageMissing: The package ``cryptography`` is not installed.
        """
        if find_spec("cryptography") is None:
            raise SigningPackageMissing
        digest = digest or self.conf.security_digest
        super().setup_security(allowed_serializers, key, key_password, cert, store, digest, serializer)
        from taskapp.client.signing import Signing  # only here: it needs ``cryptography``

        conf = self.conf
        self.signing = Signing(
            Path(key or conf.security_key), key_password or conf.security_key_password,
            Path(cert or conf.security_certificate), store or conf.security_cert_store, digest,
            serializer, self.settings.max_unpacked_bytes,
        )  # fmt: skip
        self.signing.register()

    def register_task(self, task: Any, **options: Any) -> Any:
        """Register a class-based task, like Celery; ``options`` become attributes of its class."""
        task = task() if isinstance(task, type) else task
        for name, value in options.items():
            setattr(type(task), name, value)
        return super().register_task(task)

    @cached_property
    def Worker(self) -> Any:  # noqa: N802 - Celery's name
        """The class of workers."""
        return self.subclass_with_self("taskapp.worker.worker:Worker")  # type: ignore[arg-type]  # a name will do

    @cached_property
    def Beat(self) -> Any:  # noqa: N802 - Celery's name
        """The class of beats."""
        return self.subclass_with_self("taskapp.beat.program:Beat")  # type: ignore[arg-type]  # the same

    def close_connections(self) -> None:
        """Close this process's connections of the app, which can be used again: the next use opens others."""
        if self._pool is not None:
            # kombu shares it with other apps of this process.
            self._pool.force_close_all(close_pool=False)
            self._pool.setup()
        self.forget_backend()


def finalized_apps() -> list[Celery]:
    """Return the apps of taskapp in this process whose task types are complete."""
    return [app for app in _apps if app.finalized]


def is_default_app_free() -> bool:
    """Return whether no app of a project is the one that threads without a current app use."""
    found: Any = default_app()
    return found is None or found.main == "default" or getattr(found, "ships_task_types", False)


def _bind_again(sender: Any, **_: Any) -> None:
    for task in tuple(sender.known_tasks()):
        type(task).bind(sender)


def _become_node(sender: Any, **_: Any) -> None:
    """Turn a worker of a taskapp app into a node."""
    if isinstance(sender.app, Celery):
        symbol_by_name("taskapp.worker.bootsteps:prepare")(sender)


def _start_over_in_child() -> None:
    """Drop the connections that a forked web worker inherited."""
    for app in list(_apps):
        symbol_by_name("taskapp.app.after_fork:start_over")(app)


def _warn_of_stock_app(app: Any) -> None:
    """Warn of an app of stock Celery that takes the shared task types of a project away from taskapp."""
    if isinstance(default_app(), Celery) and not isinstance(app, Celery) and is_current(app):
        logger.warning(
            "the app %r of stock Celery takes the @shared_task types of this thread to its own broker and queues; "
            "create it with `from taskapp import Celery`, or with set_as_current=False", app.main,
            extra={"action": "stock_app"},
        )  # fmt: skip


on_app_finalize(_warn_of_stock_app)
signals.worker_init.connect(_become_node, weak=False)
in_child(_start_over_in_child)
