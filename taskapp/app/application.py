"""The application: Celery's, with taskapp's submits, connections and results.

A process that imports task types imports this module, too. Code that submits tasks, waits for results or reads queues
is imported on first use: a web application that starts, or a command that prints its help, needs none of it.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from celery.app import backends
from kombu.utils.objects import cached_property

from taskapp.app.engine_access import EngineAccess
from taskapp.background import PerProcess
from taskapp.client.control_clock import ControlClock
from taskapp.errors import ConfigurationReplaced
from taskapp.errors.signing import SigningPackageMissing

if TYPE_CHECKING:
    from taskapp.client.signing import Signing
    from taskapp.client.submitter import Submitter

CONFIG_FROM_OBJECT = "app.config_from_object()"
POSITIONAL_OPTIONS = ("countdown", "eta", "task_id", "producer", "connection", "router", "result_cls", "expires")
"""Options of ``Celery.send_task`` that are accepted by position."""

_making_backend = PerProcess(threading.RLock)
_backend_by_url: Any = backends.by_url  # the stubs have another return type


class Application(EngineAccess):
    """Celery's app, which checks submits at the caller and looks for its broker when it first needs one."""

    _backend: Any
    _backend_cache: Any
    _finalize_mutex: threading.RLock
    _local: threading.local
    _unusable_for: Exception | None = None
    finalized: bool

    def __init__(self, *args: Any, **options: Any) -> None:
        self.signing: Signing | None = None
        """Signs tasks and checks their signatures; ``None`` before ``setup_security``."""
        super().__init__(*args, **options)
        self.clock = ControlClock()

    @cached_property
    def submitter(self) -> Submitter:
        """Submits the app's tasks."""
        from taskapp.client.submitter import Submitter

        return Submitter(self)

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
            serializer,
        )  # fmt: skip
        self.signing.register()

    def writes_json(self, serializer: str) -> bool:
        """Return whether ``serializer`` writes JSON, signed or not."""
        return serializer in ("json", "application/json") or (
            serializer == "auth" and self.signing is not None and self.signing.writes_json
        )

    def config_from_object(self, obj: Any, *_: Any, **__: Any) -> Any:
        """Refuse to replace the configuration.

        Raises:
            ConfigurationReplaced: Always; the error says how to set single values instead.
        """
        raise ConfigurationReplaced(f"app.config_from_object({obj!r})" if isinstance(obj, str) else CONFIG_FROM_OBJECT)

    def config_from_envvar(self, variable_name: str, *_: Any, **__: Any) -> Any:
        """Refuse to replace the configuration, like ``config_from_object``."""
        raise ConfigurationReplaced(f"app.config_from_envvar({variable_name!r})")

    def register_task(self, task: Any, **options: Any) -> Any:
        """Register a class-based task, like Celery; ``options`` become attributes of its class."""
        task = task() if isinstance(task, type) else task
        for name, value in options.items():
            setattr(type(task), name, value)
        return super().register_task(task)

    def send_task(self, name: str, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        """Send the task ``name``, like Celery, after checking its options and arguments; see ``Submitter``."""
        options.update(zip(POSITIONAL_OPTIONS, rest, strict=False))
        return self.submitter.send_task(name, args, kwargs, options)

    def send_by_kombu(self, name: str, args: Any, kwargs: Any, options: dict[str, Any]) -> Any:
        """Send a task through kombu, like Celery."""
        return super().send_task(name, args, kwargs, **options)

    def known_task(self, name: str) -> Any:
        """Return the task type ``name`` if it is registered already, without finalizing the app."""
        return self._tasks.get(name)  # type: ignore[attr-defined]  # missing in the stubs

    @cached_property
    def Worker(self) -> Any:  # noqa: N802 - Celery's name
        """The class of workers."""
        return self.subclass_with_self("taskapp.worker.worker:Worker")  # type: ignore[arg-type]  # a name will do

    @cached_property
    def Beat(self) -> Any:  # noqa: N802 - Celery's name
        """The class of beats."""
        return self.subclass_with_self("taskapp.beat.program:Beat")  # type: ignore[arg-type]  # the same

    @cached_property
    def AsyncResult(self) -> Any:  # noqa: N802 - Celery's name
        """The class of a task's result."""
        return self.subclass_with_self("taskapp.client.results:AsyncResult")  # type: ignore[arg-type]  # the same

    @cached_property
    def ResultSet(self) -> Any:  # noqa: N802 - the same
        """The class of a set of results."""
        return self.subclass_with_self("taskapp.client.results:ResultSet")  # type: ignore[arg-type]  # the same

    @cached_property
    def GroupResult(self) -> Any:  # noqa: N802 - the same
        """The class of a group's results."""
        return self.subclass_with_self("taskapp.client.results:GroupResult")  # type: ignore[arg-type]  # the same

    def lend_producer(self, producer: Any = None) -> Any:
        """Lend a producer for one message, without collecting.

        Raises:
            kombu.exceptions.LimitExceeded: All are lent until the deadline of the current submit.
        """
        from taskapp.transport.rabbitmq import left_seconds

        if producer is None and (seconds := left_seconds()) is not None:
            return self.producer_pool.acquire(block=True, timeout=seconds)
        return super().producer_or_acquire(producer)

    @contextmanager
    def producer_or_acquire(self, producer: Any = None) -> Iterator[Any]:  # type: ignore[override]  # a class in Celery
        """Lend a producer, like Celery; tasks submitted inside are pushed in batches.

        Celery's groups submit inside such a block.
        """
        from taskapp.engine.batch import collecting

        with super().producer_or_acquire(producer) as lent, collecting() if producer is None else nullcontext():
            yield lent

    def now(self) -> datetime:
        """Return the current time in the app's time zone; twenty times as fast as Celery's own."""
        return datetime.now(self.timezone)

    def forget_backend(self) -> None:
        """Make the next use of results open new connections."""
        self._backend_cache = None
        self._local.__dict__.pop("backend", None)

    def keeps_results_in_sql(self) -> bool:
        """Return whether a backend that does was made here."""
        made = (self._backend_cache, getattr(self._local, "backend", None))
        return any(type(each).__module__.startswith("celery.backends.database") for each in made)

    def _connection(self, url: str | None, *args: Any, **options: Any) -> Any:
        self.find_broker()
        return super()._connection(url or self.conf.broker_url, *args, **options)  # type: ignore[misc]  # untyped

    def _get_backend(self) -> Any:
        from taskapp.results.literal_dicts import writing_literals

        self.find_broker()
        with _making_backend():
            # Celery lets each thread that asks first make one.
            if self._backend is None:
                given, url = _backend_by_url(self.backend_cls or self.conf.result_backend, self.loader)
                self._backend = writing_literals(given)(app=self, url=url)
            return self._backend
