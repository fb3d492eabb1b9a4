"""Each way to make a task of a function, and the type of the task."""

from collections.abc import Coroutine
from typing import Any, assert_type

from pydantic import BaseModel

from taskapp import AsyncResult, Celery, Task, shared_task

app = Celery("proj", broker="redis://", backend="redis://", include=["proj.tasks"])


class Order(BaseModel):
    id: int


class DatabaseTask(Task):
    masks = ("password",)

    @property
    def database(self) -> str:
        return "orders"


@app.task
def plain(x: int, y: str = "") -> float:
    return 0.5


@app.task()
def called(x: int, y: str = "") -> float:
    return 0.5


@app.task(name="named", queue="high", max_retries=3, autoretry_for=(OSError,), retry_backoff=True, cpu_bound=True)
def named(x: int, y: str = "") -> float:
    return 0.5


@shared_task
def shared(x: int, y: str = "") -> float:
    return 0.5


@shared_task(ignore_result=True, rate_limit="10/s", masks=["y"], sensitive=True, typed=True)
def shared_named(x: int, y: str = "") -> float:
    return 0.5


@shared_task(
    unique=True, unique_for="start", on_duplicate="replace", rate_limit="100/m", rate_key="{y}", rate_cost="{x}",
    max_concurrency={"{y}": 10, "all": 200}, on_busy="wait", fair_key="{y}",
)  # fmt: skip
def limited(x: int, y: str = "") -> float:
    return 0.5


@app.task(unique_key="{x}", debounce=5, debounce_at_most=60, rate_limit=3, rate_burst=9, rate_scope="cluster")
def also_limited(x: int, y: str = "") -> float:
    return 0.5


@app.task(rate_limit=1, rate_cost=lambda x, y="": x * 2, max_concurrency=3, concurrency_key="{x}")
def limited_by_cost(x: int, y: str = "") -> float:
    return 0.5


@app.task
async def coroutine(x: int, y: str = "") -> float:
    return 0.5


@shared_task(acks_late=False)
async def shared_coroutine(x: int, y: str = "") -> float:
    return 0.5


@app.task(bind=True)
def bound(self: Task, x: int, y: str = "") -> float:
    self.update_state(state="HALF", meta={"done": 1})
    self.progress(1, 2, "half")
    self.progress("half")  # E: arg-type reportArgumentType
    if self.request.retries > 1:
        raise self.retry(countdwn=3)  # E: call-arg reportCallIssue
    if self.request.retries:
        raise self.retry(exc=OSError("again"), countdown=3, max_retries=5, queue="low")
    return 0.5


@shared_task(bind=True)
async def bound_coroutine(self: Task, x: int, y: str = "") -> float:
    return 0.5


@app.task(base=DatabaseTask)
def based(x: int, y: str = "") -> float:
    return 0.5


@shared_task(bind=True, base=DatabaseTask, once={"graceful": True})
def bound_based(self: DatabaseTask, x: int, y: str = "") -> float:
    assert_type(self.database, str)
    return 0.5


@app.task(bind=True, base=DatabaseTask)
async def bound_based_coroutine(self: DatabaseTask, x: int, y: str = "") -> float:
    return 0.5


@shared_task(bind=True, base=DatabaseTask)  # E: arg-type reportArgumentType reportCallIssue
def bound_to_another(self: int, x: int) -> float:
    return 0.5


plain = plain  # the type of a name stays the same
for task in (
    plain, called, named, shared, shared_named, coroutine, shared_coroutine, bound, bound_coroutine, based,
    bound_based, bound_based_coroutine,
):  # fmt: skip
    assert_type(task.delay(1, y="a"), AsyncResult[float])
    assert_type(task.delay(1).get(timeout=3), float)
    task.delay("1")  # E: arg-type reportArgumentType


# --- models ------------------------------------------------------------------------------------------


@app.task(pydantic=True)
def confirm(order: Order) -> str:
    return ""


@shared_task
def place(order: Order, number: int) -> Order:
    return order


@shared_task
async def place_on_loop(payload: dict[str, Any], order: Order) -> Order:
    return order


assert_type(confirm.delay(Order(id=7)).get(), str)
assert_type(confirm.delay(order=Order(id=7)).get(), str)
assert_type(confirm.delay({"id": 7}).get(), str)
assert_type(confirm.delay(order={"id": 7}).get(), str)
assert_type(place.delay({"id": 7}, 3).get(), dict[str, Any])
assert_type(place.delay(Order(id=7), 3).get(), dict[str, Any])
assert_type(place_on_loop.delay({}, Order(id=7)).get(), dict[str, Any])
confirm.delay(7)  # E: call-overload reportCallIssue reportArgumentType
confirm.delay(orders=Order(id=7))  # E: call-overload reportArgumentType
plain.delay({"id": 7})  # E: arg-type reportArgumentType
plain.delay(x={"id": 7})  # E: arg-type reportArgumentType


# --- functions with parts of unknown type --------------------------------------------------------------


@app.task
async def takes_json(payload: dict[str, Any]) -> int:
    return 1


@app.task
async def returns_json(x: int) -> dict[str, Any]:
    return {}


@app.task(bind=True)
def takes_any(self: Any, x: int, y: Any) -> int:
    return 1


@app.task
def many(*numbers: int, **names: str) -> None: ...


assert_type(takes_json.delay({}).get(), int)
assert_type(returns_json.delay(1).get(), dict[str, Any])
assert_type(takes_any.delay(1, object()).get(), int)
assert_type(many.delay(1, 2, a="b").get(), None)
takes_json.delay(3)  # E: arg-type reportArgumentType
returns_json.delay("x")  # E: arg-type reportArgumentType
takes_any.delay("x", 1)  # E: arg-type reportArgumentType
many.delay("x")  # E: arg-type reportArgumentType
many.delay(1, a=2)  # E: arg-type reportArgumentType

# --- options -----------------------------------------------------------------------------------------


@app.task(max_retires=3)  # E: call-overload untyped-decorator reportCallIssue
def misspelt() -> None: ...


@app.task(max_retries="three")  # E: call-overload untyped-decorator reportArgumentType
def mistyped() -> None: ...


@shared_task("name")  # E: call-overload untyped-decorator reportCallIssue reportArgumentType
def positional() -> None: ...


app.conf.update(task_acks_late=True)
app.conf.timezone = "Europe/London"
app.autodiscover_tasks()


async def call_it() -> None:
    coroutine_of: Coroutine[Any, Any, float] = coroutine(1)
    number: float = plain(1)
    plain("x")  # E: arg-type reportArgumentType
    assert await coroutine_of == number == await coroutine(2)
