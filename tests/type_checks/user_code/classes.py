"""Classes of a user's own: tasks, their base classes, and apps."""

from typing import Any, assert_type

from taskapp import AsyncResult, Celery, Signature, Task, group


class Audited(Task):
    abstract = True
    max_retries = 5
    cpu_bound = True
    masks = ("password",)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return super().__call__(*args, **kwargs)

    def apply_async(self, args: Any = None, kwargs: Any = None, **options: Any) -> AsyncResult[Any]:  # E with: override
        return super().apply_async(args, kwargs, **options)

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        assert task_id == self.request.id, self.name

    def on_failure(self, exc: Exception, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        self.update_state(task_id, "FAILURE", meta={"audited": True})


class Add(Audited):
    name = "proj.add"

    def run(self, x: int, y: int) -> int:
        return x + y


class Typed(Task[[int, int], int]):
    name = "proj.typed"


class App(Celery):
    def on_init(self) -> None:
        self.conf.task_acks_late = True


app = App("proj", task_cls=Audited)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(lambda: ["proj"])
app.autodiscover_tasks("proj", 3)  # E: arg-type reportArgumentType
registered = app.register_task(Add())


@app.task(base=Audited, masks=("token",), custom={"any": "thing"})
def login(user: str, token: str) -> bool:
    return True


@app.task(bind=True)
def parent(self: Audited, ids: list[int]) -> list[int]:
    children = group(login.s(str(each), "") for each in ids)
    raise self.replace(children)


class Holder:
    def __init__(self, task: Task[[str, str], bool]) -> None:
        self.task = task
        self.results: dict[str, AsyncResult[bool]] = {}
        self.last: Signature[bool] | None = None

    def submit(self, user: str) -> bool:
        self.results[user] = self.task.delay(user, "")
        self.last = self.task.s(user, "")
        self.task.delay(user)  # E: call-arg reportCallIssue
        return self.results[user].get()


assert_type(Typed().delay(1, 2).get(), int)
Typed().delay("1", 2)  # E: call-overload reportArgumentType
assert_type(Holder(login).submit("ada"), bool)
Holder(parent)  # E: arg-type reportArgumentType
isinstance(login, Task)
isinstance(login.s("ada", ""), Signature)
isinstance(login.delay("ada", ""), AsyncResult)
