"""Types of tasks and of the decorators that make them, for type checkers only.

What is declared here has these types with and without ``celery-types``.
"""

# Options are checked by name, and calls of tasks by their functions' parameters.
# mypy: disable-error-code="override"

from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Concatenate, Generic, Literal, Protocol, TypedDict, TypeVar, Unpack, overload

import celery as stock
from pydantic import BaseModel
from typing_extensions import ParamSpec

from taskapp.app.retries import Backoff
from taskapp.client import stock_types
from taskapp.client.async_canvas import Signature
from taskapp.client.limits.circuit_breaker import CircuitBreaker
from taskapp.client.option_types import CommonOptions, SubmitOptions
from taskapp.client.results import AsyncResult as Result
from taskapp.client.results import EagerResult
from taskapp.client.type_parameters import P, R_co

Given = ParamSpec("Given")
Rest = ParamSpec("Rest")
R = TypeVar("R")
Base = TypeVar("Base")
Base_co = TypeVar("Base_co", covariant=True)
Model = TypeVar("Model", bound=BaseModel)
Json = dict[str, Any]
Data = Mapping[str, Any]
Args = Sequence[Any] | None
Kwargs = Mapping[str, Any] | None
Calls = Iterable[Mapping[str, Any] | list[Any] | tuple[Any, ...]]

class Task(stock_types.Task[P, R_co], Generic[P, R_co]):
    """A task whose function has the parameters ``P`` and whose result has the type ``R_co``.

    Where a model is the first parameter, a dict of its fields may be passed.
    """

    name: str
    cpu_bound: bool
    concurrency_key: str | None
    debounce: float | None
    debounce_at_most: float | None
    fair_key: str | None
    max_concurrency: int | Mapping[str, int] | None
    on_busy: Literal["wait", "drop", "cancel"] | None
    on_duplicate: Literal["existing", "raise", "replace", "latest"] | None
    rate_burst: float | None
    rate_cost: float | str | Callable[..., float] | None
    rate_key: str | None
    rate_scope: Literal["cluster", "node"] | None
    unique: bool | Literal["type"] | None
    unique_for: Literal["start", "end"] | float | None
    unique_key: str | None
    keeps_failures: bool
    masks: tuple[str, ...]
    sensitive: bool
    typed: bool
    @property
    def request(self) -> Any: ...
    @property
    def app(self) -> Any: ...
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Any: ...  # a coroutine, if the function is one
    @overload
    def delay(self, *args: P.args, **kwargs: P.kwargs) -> Result[R_co]: ...
    @overload
    def delay(self: Task[Concatenate[Model, ...], R_co], data: Data, /, *args: Any, **kwargs: Any) -> Result[R_co]: ...
    @overload
    def delay(self: Task[[Model], R_co], **data: Data) -> Result[R_co]: ...
    @overload
    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> Result[R_co]: ...
    @overload
    async def adelay(
        self: Task[Concatenate[Model, ...], R_co], data: Data, /, *args: Any, **kwargs: Any
    ) -> Result[R_co]: ...
    @overload
    async def adelay(self: Task[[Model], R_co], **data: Data) -> Result[R_co]: ...
    @overload
    def si(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R_co]: ...
    @overload
    def si(self: Task[Concatenate[Model, ...], R_co], data: Data, /, *args: Any, **kwargs: Any) -> Signature[R_co]: ...
    @overload
    def si(self: Task[[Model], R_co], **data: Data) -> Signature[R_co]: ...
    # All arguments, or all but the first, which the task before it in a chain returns; or none yet.
    @overload
    def s(self, *args: P.args, **kwargs: P.kwargs) -> Signature[R_co]: ...
    @overload
    def s(self: Task[Concatenate[Any, Rest], R_co], *args: Rest.args, **kwargs: Rest.kwargs) -> Signature[R_co]: ...
    @overload
    def s(self: Task[Concatenate[Model, ...], R_co], data: Data, /, *args: Any, **kwargs: Any) -> Signature[R_co]: ...
    @overload
    def s(self: Task[[Model], R_co], **data: Data) -> Signature[R_co]: ...
    @overload
    def s(self: Task[[Any, Model], R_co], **data: Data) -> Signature[R_co]: ...
    @overload
    def s(self: Task[Concatenate[Any, Any, ...], R_co]) -> Signature[R_co]: ...
    def signature(self, args: Args = None, kwargs: Kwargs = None, *rest: Any, **options: Any) -> Signature[R_co]: ...
    def subtask(self, args: Args = None, kwargs: Kwargs = None, *rest: Any, **options: Any) -> Signature[R_co]: ...
    def apply_async(
        self, args: Args = None, kwargs: Kwargs = None, **options: Unpack[SubmitOptions]
    ) -> Result[R_co]: ...
    async def aapply_async(
        self, args: Args = None, kwargs: Kwargs = None, **options: Unpack[SubmitOptions]
    ) -> Result[R_co]: ...
    def submit_many(self, calls: Calls, **options: Unpack[CommonOptions]) -> list[Result[R_co]]: ...
    async def asubmit_many(self, calls: Calls, **options: Unpack[CommonOptions]) -> list[Result[R_co]]: ...
    def apply(self, args: Args = None, kwargs: Kwargs = None, **options: Any) -> EagerResult[R_co]: ...
    def retry(
        self,
        args: Args = None,
        kwargs: Kwargs = None,
        exc: BaseException | None = None,
        throw: bool = True,
        *,
        max_retries: int | None = None,
        **options: Unpack[SubmitOptions],
    ) -> Any: ...  # Celery's Retry, to be raised
    def AsyncResult(self, task_id: str, **options: Any) -> Result[R_co]: ...
    def replace(self, sig: stock_types.Signature[Any]) -> Any: ...  # to be raised
    def pause_rate(self, seconds: float) -> None: ...
    def progress(self, done: float, total: float | None = None, note: str = "") -> None: ...
    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None, **kwargs: Any
    ) -> None: ...

class TaskOptions(TypedDict, total=False):
    """Options of ``@app.task`` and ``@shared_task``: Celery's, and taskapp's ``Task``'s."""

    abstract: bool
    acks_late: bool
    acks_on_failure: bool | None
    acks_on_failure_or_timeout: bool
    acks_on_timeout: bool | None
    after_return: Callable[..., Any]
    autoregister: bool
    autoretry_for: Sequence[type[BaseException]]
    before_start: Callable[..., Any]
    circuit_breaker: CircuitBreaker | None
    compression: str | None
    concurrency_key: str | None
    cpu_bound: bool
    debounce: float | None
    debounce_at_most: float | None
    default_retry_delay: float
    dont_autoretry_for: Sequence[type[BaseException]]
    exchange: Any
    expires: float | datetime | None
    fair_key: str | None
    ignore_result: bool
    keeps_failures: bool
    lazy: bool
    masks: Sequence[str]
    max_concurrency: int | Mapping[str, int] | None
    max_retries: int | None
    name: str
    needs_extra: str
    on_busy: Literal["wait", "drop", "cancel"] | None
    on_duplicate: Literal["existing", "raise", "replace", "latest"] | None
    on_failure: Callable[..., Any]
    on_retry: Callable[..., Any]
    on_success: Callable[..., Any]
    priority: int | None
    pydantic: bool
    pydantic_context: dict[str, Any] | None
    pydantic_dump_kwargs: dict[str, Any] | None
    pydantic_strict: bool
    queue: str
    rate_burst: float | None
    rate_cost: float | str | Callable[..., float] | None
    rate_key: str | None
    rate_limit: str | float | None
    rate_scope: Literal["cluster", "node"] | None
    reject_on_worker_lost: bool | None
    Request: Any
    request_stack: Any
    resultrepr_maxsize: int
    retry_backoff: bool | float
    retry_budget: float | str | None
    retry_on: Mapping[type[Exception], Backoff] | None
    retry_backoff_max: float
    retry_jitter: bool
    retry_kwargs: dict[str, Any]
    retry_on_worker_lost: bool | None
    routing_key: str
    send_events: bool
    sensitive: bool
    serializer: str
    shadow_name: Callable[..., Any]
    shared: bool
    soft_time_limit: float | None
    store_eager_result: bool
    store_errors_even_if_ignored: bool
    Strategy: Any
    throws: Sequence[type[BaseException]]
    time_limit: float | None
    track_started: bool
    trail: bool
    typed: bool
    typing: bool
    unique: bool | Literal["type"] | None
    unique_for: Literal["start", "end"] | float | None
    unique_key: str | None

class Unknown:
    """What no function returns, unless its type is unknown."""

class Decorator(Protocol):
    """Makes a task of a function. A model that it returns becomes a dict."""

    @overload
    def __call__(self, fun: Callable[Given, Unknown], /) -> Task[Given, Any]: ...
    @overload
    def __call__(self, fun: Callable[Given, Coroutine[Any, Any, Model]], /) -> Task[Given, Json]: ...
    @overload
    def __call__(self, fun: Callable[Given, Coroutine[Any, Any, R]], /) -> Task[Given, R]: ...
    @overload
    def __call__(self, fun: Callable[Given, Model], /) -> Task[Given, Json]: ...
    @overload
    def __call__(self, fun: Callable[Given, R], /) -> Task[Given, R]: ...

class BoundDecorator(Protocol[Base_co]):
    """Makes a task of a function whose first parameter is the task."""

    @overload
    def __call__(self, fun: Callable[Concatenate[Base_co, Given], Unknown], /) -> Task[Given, Any]: ...
    @overload
    def __call__(
        self, fun: Callable[Concatenate[Base_co, Given], Coroutine[Any, Any, Model]], /
    ) -> Task[Given, Json]: ...
    @overload
    def __call__(self, fun: Callable[Concatenate[Base_co, Given], Coroutine[Any, Any, R]], /) -> Task[Given, R]: ...
    @overload
    def __call__(self, fun: Callable[Concatenate[Base_co, Given], Model], /) -> Task[Given, Json]: ...
    @overload
    def __call__(self, fun: Callable[Concatenate[Base_co, Given], R], /) -> Task[Given, R]: ...

class Celery(stock.Celery):
    """Celery's app, with the types of ``@app.task``."""

    conf: Any
    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> Any: ...
    def autodiscover_tasks(
        self,
        packages: Sequence[str] | Callable[[], Sequence[str]] | None = None,
        related_name: str | None = "tasks",
        force: bool = False,
    ) -> None: ...
    @overload
    def task(self, fun: Callable[Given, Unknown], /) -> Task[Given, Any]: ...
    @overload
    def task(self, fun: Callable[Given, Coroutine[Any, Any, Model]], /) -> Task[Given, Json]: ...
    @overload
    def task(self, fun: Callable[Given, Coroutine[Any, Any, R]], /) -> Task[Given, R]: ...
    @overload
    def task(self, fun: Callable[Given, Model], /) -> Task[Given, Json]: ...
    @overload
    def task(self, fun: Callable[Given, R], /) -> Task[Given, R]: ...
    @overload
    def task(self, *, bind: Literal[True], base: type[Base], **options: Any) -> BoundDecorator[Base]: ...
    @overload
    def task(self, *, bind: Literal[True], **options: Unpack[TaskOptions]) -> BoundDecorator[Any]: ...
    @overload
    def task(self, *, bind: Literal[False] = False, base: type[Any], **options: Any) -> Decorator: ...
    @overload
    def task(self, *, bind: Literal[False] = False, **options: Unpack[TaskOptions]) -> Decorator: ...

@overload
def shared_task(fun: Callable[Given, Unknown], /) -> Task[Given, Any]: ...
@overload
def shared_task(fun: Callable[Given, Coroutine[Any, Any, Model]], /) -> Task[Given, Json]: ...
@overload
def shared_task(fun: Callable[Given, Coroutine[Any, Any, R]], /) -> Task[Given, R]: ...
@overload
def shared_task(fun: Callable[Given, Model], /) -> Task[Given, Json]: ...
@overload
def shared_task(fun: Callable[Given, R], /) -> Task[Given, R]: ...
@overload
def shared_task(*, bind: Literal[True], base: type[Base], **options: Any) -> BoundDecorator[Base]: ...
@overload
def shared_task(*, bind: Literal[True], **options: Unpack[TaskOptions]) -> BoundDecorator[Any]: ...
@overload
def shared_task(*, bind: Literal[False] = False, base: type[Any], **options: Any) -> Decorator: ...
@overload
def shared_task(*, bind: Literal[False] = False, **options: Unpack[TaskOptions]) -> Decorator: ...
