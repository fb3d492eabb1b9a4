"""The base class of every task type: typed payloads, submits from coroutines, progress, retries."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from inspect import iscoroutine
from typing import TYPE_CHECKING, Any

import celery
from celery.app.task import Context
from celery.canvas import Signature

from taskapp.app.annotations import checkable, parameters_of
from taskapp.app.declared_limits import LimitedTask, limits_declared_by, with_limits_of
from taskapp.app.options import check_declaration, check_masks
from taskapp.app.own_strategy import counting, has_own_strategy, strategy_of
from taskapp.app.progress import note_progress
from taskapp.app.rate_pauses import retry_after_of
from taskapp.app.retries import NEVER_RETRIED, DeclaredRetries, RetryTask, backoff_for, check_retries, with_attempts
from taskapp.app.wrapping import checked
from taskapp.celery_internals import begin_call, eager_name
from taskapp.client.batches import Call, Submit, asubmit_many, submit_many
from taskapp.client.canvas import TaskSignature
from taskapp.client.option_checks import check_priority
from taskapp.client.option_names import OF_RETRIES, check_names
from taskapp.client.protocol import with_texts_of_ids
from taskapp.client.results import EagerResult
from taskapp.client.submitter import Submitter
from taskapp.engine.settlement import collecting, settling
from taskapp.execution.coroutines import run_on_loop_of_tasks, run_to_end
from taskapp.execution.current_task import ContextStack
from taskapp.execution.failures import as_error, traceback_of
from taskapp.execution.watched_calls import to_raise
from taskapp.extras import missing_extra
from taskapp.results.absent import NoResults

if TYPE_CHECKING:
    from taskapp.app.application import Celery
    from taskapp.app.payload import Payload

POSITIONAL_OPTIONS = ("task_id", "producer", "link", "link_error", "shadow")
"""Options of ``apply_async`` that are accepted by position."""


class Task(RetryTask, LimitedTask, celery.Task):  # type: ignore[type-arg]  # Celery's own class has no parameters
    """A Celery task whose annotated arguments are checked and whose permanent errors are not retried.

    The attributes below, and those of ``LimitedTask`` and ``RetryTask``, are options in addition to Celery's.
    ``autoretry_for``, ``max_retries``, ``retry_backoff`` and ``retry_backoff_max`` have the same meaning
    as in Celery; delays are drawn evenly from zero to the backoff (full jitter).
    """

    abstract = True
    cpu_bound = False
    """Run in a child process of the worker: for tasks that hold the GIL, or that a hard time limit must kill."""
    typed = False
    """Check plainly annotated arguments (``x: int``) as well as Pydantic models."""
    needs_extra = ""
    """Name of taskapp's extra that this type needs to run; without it the type is not registered."""
    keeps_failures = True
    """Keep the message of a task that failed permanently as a dead letter, to inspect and replay it."""
    masks: tuple[str, ...] = ()
    """Arguments, and keys at any depth inside them, whose values are neither kept in the history nor shown."""
    sensitive = False
    """Keep arguments, result and errors of these tasks out of the history, and never show them."""
    Request = "taskapp.worker.consume.request:Request"
    Strategy = "taskapp.worker.consume.strategy:Strategy"
    retry_jitter = True
    declared_retries: DeclaredRetries
    _is_method: bool
    _backend: Any
    _dump_pydantic_arguments: Any
    _get_exec_options: Callable[[], dict[str, Any]]
    _unchecked_run: Callable[..., Any]

    @classmethod
    def bind(cls, app: celery.Celery) -> celery.Celery:
        """Bind to ``app``, like Celery; make ``run`` check its arguments and dump a model that it returns.

        Raises:
            UnknownTaskOption, BadMasks, BadOption, BadLimit, BadRetryOption: An option is misspelt or invalid.
        """
        is_new = "_unchecked_run" not in cls.__dict__
        if is_new:  # later it also has attributes that hooks of its base have set
            check_declaration(cls, app)
        bound: celery.Celery = super().bind(app)
        check_masks(cls)
        if (own_backend := cls.__dict__.get("backend")) is not None:  # ``@app.task(backend=…)``
            cls._backend = own_backend
        cls.request_stack = ContextStack()
        cls.declared_retries = check_retries(cls)
        if is_new:
            cls._wrap_run()
        cls.declared_limits = limits_declared_by(cls)
        return bound

    @classmethod
    def _wrap_run(cls) -> None:
        """Wrap the function of this type: its own, or the original of an inherited one."""
        owner = next(base for base in cls.__mro__ if "run" in vars(base))
        run = vars(owner).get("_unchecked_run", vars(owner)["run"])
        cls._is_method = vars(owner).get("_is_method", not isinstance(run, staticmethod))
        cls._unchecked_run = staticmethod(getattr(run, "__func__", run))
        if owner is celery.Task:
            return  # it overrides ``__call__`` instead
        run = checked(cls, cls._unchecked_run)
        cls.run = run if cls._is_method else staticmethod(run)  # type: ignore[method-assign]
        # So that Celery does not wrap it in its own automatic retry.
        cls._orig_run = cls.run  # type: ignore[attr-defined]

    def start_strategy(self, app: Any, consumer: Any, **options: Any) -> Any:
        """Return the handler for messages of this type."""
        if has_own_strategy(self):
            handle = super().start_strategy(app, consumer, **options)
            return counting(handle, getattr(consumer.pool, "kept", None))
        return strategy_of(self)(self, app, consumer, **options)

    @classmethod
    @functools.cache
    def payload(cls) -> Payload | None:
        """Return the checks of this type's arguments, read once from its annotations; ``None``: nothing is checked.

        Every call and every submit begins here.

        Raises:
            TaskTypeMissesExtra: The extra that the type needs is not installed.
        """
        if error := missing_extra(cls):
            raise error
        _ = cls.app  # binds a type that was registered after the app was finalized
        run, bound = cls._unchecked_run, cls._is_method
        if not any(checkable(run, parameters_of(run, bound=bound), plain=cls.typed)):
            return None
        from taskapp.app.payload import Payload  # brings in pydantic

        return Payload(cls.name, run, plain=cls.typed, bound=bound)

    def signature(self, args: Any = None, *starargs: Any, **starkwargs: Any) -> Signature[Any]:
        """Create a signature, like Celery; keyword arguments are checked now.

        Raises:
            InvalidPayload: A keyword argument is invalid.
            UnknownOption: An option is misspelt.
            BadOption: The priority is not an integer from 0 to 9.
            BadLimit: A number that all tasks of a type share is given.
        """
        if payload := self.payload():
            kwargs = starargs[0] if starargs else starkwargs.get("kwargs")
            args, named = payload.named_to_json(args or (), kwargs or {})
            if starargs:
                starargs = (named, *starargs[1:])
            elif kwargs:
                starkwargs["kwargs"] = named
        starkwargs.setdefault("app", self.app)
        made = TaskSignature(self, args, *starargs, **starkwargs)
        if made["options"]:
            check_names(self.name, made["options"], self.app)
            check_priority(self.name, made["options"].get("priority"))
        return made

    subtask = signature

    def submit_member(self, args: Any, kwargs: Any, headers: dict[str, Any]) -> bool:
        """Submit a task of a group with these headers; return ``False`` if only Celery's own way supports it.

        Raises:
            InvalidPayload: An argument is invalid; nothing was queued.
        """
        if type(self).apply_async is not Task.apply_async or not self._has_usual_name or self.__v2_compat__:
            return False
        if payload := self.payload():
            args, kwargs = payload.to_json(args, kwargs)
        args, kwargs = self._checked_call(args, kwargs, {})
        return self._submitter.submit_member(self, args, kwargs, headers)

    def apply_async(self, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any) -> Any:
        """Submit a task, like Celery, after checking its arguments; errors are those of ``Submitter``.

        Raises:
            InvalidPayload: An argument is invalid; nothing was queued.
        """
        # The caller cannot correct the arguments of a follow-up or a retry: they are checked when
        # the task runs, so that it is this task that fails.
        comes_from_a_run = options.get("parent_id") is not None or options.get("retries")
        if (payload := self.payload()) and not comes_from_a_run:
            args, kwargs = payload.to_json(args or (), kwargs or {})
        if self._submitter.is_eager or self.__v2_compat__:
            return super().apply_async(args, kwargs, *rest, **options)
        options.update(zip(POSITIONAL_OPTIONS, rest, strict=False))
        args, kwargs = self._checked_call(args or (), kwargs or {}, options)
        if not options and self._has_usual_name:
            return self._submitter.submit(self, args, kwargs)
        return self.app.send_task(self.name, args, kwargs, **self._options(args, kwargs, options))

    def _checked_call(self, args: Any, kwargs: Any, options: dict[str, Any]) -> tuple[Any, Any]:
        """Check and convert the arguments like Celery's ``apply_async``."""
        if self.soft_time_limit and self.time_limit and self.soft_time_limit > self.time_limit:
            raise ValueError("soft_time_limit must be less than or equal to time_limit")
        if self.typing:
            self.__header__(*args, **kwargs)
        if self._dump_pydantic_arguments is not None and options.get("serializer") != "pickle":
            args, kwargs = self._dump_pydantic_arguments(args, kwargs)
        return args, kwargs

    def _options(self, args: Any, kwargs: Any, options: dict[str, Any]) -> dict[str, Any]:
        """Complete the options like Celery's ``apply_async``."""
        shadow_name: Callable[..., str | None] = self.shadow_name
        shadow = options.get("shadow") or shadow_name(args, kwargs, options)
        result = self._application.AsyncResult if self._has_usual_result else self.AsyncResult
        usual = {"ignore_result": self.ignore_result, "result_cls": result}
        return {**usual, **self._get_exec_options(), **options, "shadow": shadow, "task_type": self}

    def usual_options(self) -> dict[str, Any]:
        """Return the options of a task of this type that is submitted without any."""
        return self._options((), {}, {})

    @property
    def _has_usual_name(self) -> bool:
        return type(self).shadow_name is celery.Task.shadow_name

    @property
    def _has_usual_result(self) -> bool:
        return type(self).AsyncResult is Task.AsyncResult and self._backend is None

    def __header__(self, *args: Any, **kwargs: Any) -> Any:
        """Accept any arguments; Celery replaces this by a check, except for class-based tasks."""

    def AsyncResult(self, task_id: str, **options: Any) -> Any:  # noqa: N802 - Celery's name
        """Return the result of the task ``task_id`` of this type."""
        return self._application.AsyncResult(task_id, **{"backend": self._backend, **options})

    @property
    def backend(self) -> Any:
        """The result backend; one that stores nothing while there is none: ``apply`` needs no server."""
        # A type of ours may belong to an app of stock Celery, which has no such attribute.
        if self._backend is None and not getattr(self._application, "has_results", True):
            return NoResults(self._application)
        return super().backend

    @backend.setter
    def backend(self, value: Any) -> None:
        self._backend = value

    @property
    def _application(self) -> Celery:
        app: Any = self.app
        application: Celery = app
        return application

    @property
    def _submitter(self) -> Submitter:
        return self._application.submitter

    async def adelay(self, *args: Any, **kwargs: Any) -> Any:
        """Submit from a coroutine, see ``aapply_async``."""
        return await self.aapply_async(args, kwargs)

    async def aapply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Submit like ``apply_async`` without blocking the event loop, and return once the task is queued.

        If it is cancelled, the task may or may not be queued. Concurrent submits are pushed in batches.

        Raises:
            TaskappError: As for ``apply_async``.
        """
        return await self._submitter.awaiting(self.name, lambda: self.apply_async(args, kwargs, **options))

    def submit_many(self, calls: Iterable[Call], **options: Any) -> list[Any]:
        """Submit a task for each of ``calls``, in steps of up to 1,000 tasks or 1 MiB; return their results in order.

        Args:
            calls: Arguments of each task: a list or tuple, or a dict of keyword arguments. A generator is read as
                needed, at most 1,000 items ahead.
            options: Options of ``apply_async``, for all tasks.

        Raises:
            SubmitInterrupted: A step failed; the error lists the tasks that are queued, not queued, and unknown.
        """
        return submit_many(self.name, calls, lambda: self._submit_each(options))

    async def asubmit_many(self, calls: Iterable[Call], **options: Any) -> list[Any]:
        """Submit many from a coroutine, see ``submit_many``."""
        return await asubmit_many(self._submitter, self.name, calls, lambda: self._submit_each(options))

    def _submit_each(self, options: dict[str, Any]) -> Submit:
        """Return a function that submits one of many tasks, with the common work done in advance where possible."""
        submitter, payload = self._submitter, self.payload()
        is_alike = (
            submitter.routes_by_name and self._has_usual_name and not submitter.is_eager
            and type(self).apply_async is Task.apply_async
        )  # fmt: skip
        template = submitter.template(self, options) if is_alike else None
        if template is None:
            return lambda args, kwargs, task_id: self.apply_async(args, kwargs, **{**options, "task_id": task_id})

        def submit(args: Any, kwargs: Any, task_id: str) -> Any:
            if payload:
                args, kwargs = payload.to_json(args, kwargs)
            return template.submit(*self._checked_call(args, kwargs, options), task_id)

        return submit

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Report the progress of this run for ``taskapp task show``; never waits, on any thread or loop.

        Call it as often as you like: it is written at most four times a second, and the first and last call always.
        It does nothing outside a worker.

        Args:
            done: Amount done: rows, bytes, percent.
            total: Total amount; ``None``: unknown.
            note: Description of the current step, up to 500 characters.

        Raises:
            TypeError: ``done`` or ``total`` is not a number.
            ValueError: One of them is not finite.
        """
        note_progress(self.request, done, total, note)

    def retry(self, *args: Any, exc: Exception | None = None, countdown: float | None = None, **options: Any) -> Any:
        """Retry, like Celery, unless ``exc`` is permanent; wait at least ``exc.retry_after_seconds``, if set.

        Without ``countdown`` and ``eta``, ``retry_on`` says how long to wait after ``exc``.
        """
        if isinstance(exc, NEVER_RETRIED):
            raise exc
        check_names(self.name, options, self.app, OF_RETRIES)
        backoff = backoff_for(self, exc)
        if backoff is not None and countdown is None and options.get("eta") is None:
            countdown = backoff.seconds(self.request.retries)
        asked_seconds = retry_after_of(exc)
        if asked_seconds is not None and options.get("eta") is None:
            countdown = max(countdown or 0, asked_seconds)
        if options.get("max_retries") is not None:
            # Celery stores it on the task, where all runs of this process would share it.
            self.request.asked_max_retries = options["max_retries"]  # type: ignore[attr-defined]
        elif backoff is not None and backoff.max_retries is not None:
            options["max_retries"] = backoff.max_retries
        options = with_limits_of(self, with_attempts(self, exc, options))
        with collecting(keep=True):
            return super().retry(*args, exc=exc, countdown=countdown, **options)  # type: ignore[misc]  # passed on

    def on_replace(self, sig: Signature[Any]) -> Any:
        """Send the replacement of this task, in the step that settles it."""
        with collecting(keep=True):
            return super().on_replace(sig)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the task's function; ``apply`` runs a coroutine to completion, other callers must await it."""
        if (error := to_raise.get()) is not None:
            raise error
        if args and isinstance(args[0], Context):
            return self._run_as_errback(*args, **kwargs)
        request: Any = self.request_stack.top
        if request is None or not request.is_eager or not begin_call(request):
            return super().__call__(*args, **kwargs)
        returned = self.run(*args, **kwargs)
        return run_to_end(returned) if iscoroutine(returned) else returned

    def _run_as_errback(self, *args: Any, **kwargs: Any) -> Any:
        """Run as an errback of three arguments: Celery calls it as a function, and catches only ``Exception``."""
        try:
            returned = super().__call__(*args, **kwargs)
            return run_on_loop_of_tasks(returned) if iscoroutine(returned) else returned
        except BaseException as error:
            if (kept := as_error(error)) is error:
                raise
            raise kept from kept.__cause__  # not from ``error``, which may be unreadable

    def apply(self, *args: Any, **options: Any) -> Any:
        """Run the task in this process, like Celery; follow-ups are sent at once, even inside another task's run.

        The result can also be awaited.
        """
        check_names(self.name, options, self.app)
        check_priority(self.name, options.get("priority"))
        with settling(None):
            done: Any = super().apply(*args, **with_texts_of_ids(self.name, options))
        text = traceback_of(done.result) if done.traceback else None
        return EagerResult(done.id, done.result, done.state, text, name=eager_name(done))
