"""A project's own app: whose settings win, which app tasks belong to, and what is said about weakened promises."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import types
from datetime import UTC
from typing import Any
from zoneinfo import ZoneInfo

import celery as stock
import pytest
from celery.schedules import crontab
from celery.utils.time import timezone as zones

from taskapp import Celery
from taskapp.app.remarks import WEAKENING, remarks_on
from taskapp.errors import InvalidSetting, TaskappError, UnknownQueue, UnknownSetting
from taskapp.results.absent import NoResults
from taskapp.settings import forget_settings
from taskapp.testing import in_process
from tests.support import clean_environment

REDIS = "redis://127.0.0.1:1/0"
PICKLE = "application/x-python-serialize"


def project(**options: Any) -> Celery:
    return Celery("proj", set_as_current=False, **{"broker": REDIS, **options})


class Url:
    """An address as pydantic, yarl and others have it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


class Secret(Url):
    """One that shows nothing."""

    def get_secret_value(self) -> str:
        return self.text

    def __str__(self) -> str:
        return "***"


# --- whose settings ---------------------------------------------------------------------------


def by_keywords() -> Celery:
    return project(task_acks_late=False, taskapp_lease_seconds=7)


def by_update() -> Celery:
    app = project()
    app.conf.update(task_acks_late=False, taskapp_lease_seconds=7)
    return app


def by_attributes() -> Celery:
    app = project()
    app.conf.task_acks_late = False
    app.conf["taskapp_lease_seconds"] = 7
    return app


def by_object() -> Celery:
    app = project()
    app.config_from_object(types.SimpleNamespace(task_acks_late=False, taskapp_lease_seconds=7))
    return app


def by_old_names() -> Celery:
    app = project()
    app.config_from_object(types.SimpleNamespace(CELERY_ACKS_LATE=False, TASKAPP_LEASE_SECONDS=7))
    return app


def by_namespace() -> Celery:
    app = project()
    settings = types.SimpleNamespace(CELERY_TASK_ACKS_LATE=False, CELERY_TASKAPP_LEASE_SECONDS=7, DEBUG=True)
    app.config_from_object(settings, namespace="CELERY")
    return app


def by_later_object() -> Celery:
    app = project()
    assert app.conf.task_acks_late
    app.config_from_object({"task_acks_late": False, "taskapp_lease_seconds": 7}, force=True)
    return app


def by_lazy_defaults() -> Celery:
    app = project()
    app.add_defaults(lambda: {"task_acks_late": False})
    app.conf.update(taskapp_lease_seconds=7)
    return app


def by_given_defaults() -> Celery:
    app = Celery("proj", set_as_current=False)
    app.add_defaults({"broker_url": REDIS, "task_acks_late": False, "taskapp_lease_seconds": 7})
    return app


WAYS = (
    by_keywords, by_update, by_attributes, by_object, by_old_names, by_namespace, by_later_object, by_lazy_defaults,
    by_given_defaults,
)  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_the_projects_settings_win_and_the_rest_is_filled_in(way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKAPP_LEASE_SECONDS", "9")
    app = way()

    assert app.conf.task_acks_late is False
    assert app.settings.lease_seconds == 7
    assert app.transport_options["lease_seconds"] == 7
    assert app.conf.task_reject_on_worker_lost is True
    assert app.conf.broker_url == app.conf.result_backend == REDIS
    assert "own_server" not in app.transport_options


def test_the_environment_configures_the_engine_of_every_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKAPP_KEY_PREFIX", "all:")
    one, other = project(), project(taskapp_key_prefix="other:")

    assert one.transport_options["global_keyprefix"] == "all:"
    assert other.transport_options["global_keyprefix"] == "other:"
    assert other.conf.result_backend_transport_options["global_keyprefix"] == "other:"


def test_a_configuration_module_named_by_a_variable_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("shop_config")
    module.task_time_limit = 30  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "shop_config", module)
    monkeypatch.setenv("SHOP_CONFIG", "shop_config")
    app = project()
    app.config_from_envvar("SHOP_CONFIG")

    assert (app.conf.task_time_limit, app.conf.task_acks_late) == (30, True)


OTHER = "redis://127.0.0.1:2/0"
URLS = {
    "list": ([REDIS, OTHER], f"{REDIS};{OTHER}"), "tuple": ((REDIS,), REDIS), "object": (Url(REDIS), REDIS),
    "secret": (Secret(REDIS), REDIS), "objects": ([Url(REDIS), Secret(OTHER)], f"{REDIS};{OTHER}"),
}  # fmt: skip


@pytest.mark.parametrize("kind", URLS)
def test_a_url_may_be_a_list_or_an_object(kind: str) -> None:
    given, text = URLS[kind]
    app = project(broker=given, backend=Url(REDIS))

    assert (app.conf.broker_url, app.conf.result_backend) == (text, REDIS)
    assert app.connection_for_write().hostname == "127.0.0.1"
    assert app.submitter.goes_together()


@pytest.mark.parametrize("setting", ["broker_url", "result_backend"])
@pytest.mark.parametrize("value", [5, b"redis://h", [], [5], {"url": REDIS}])
def test_what_is_no_url_is_refused_by_name(setting: str, value: Any) -> None:
    app = project(**{setting: value})
    with pytest.raises(InvalidSetting, match=rf"setting {setting} .* of the type {type(value).__name__}; use a URL"):
        _ = app.conf.broker_url


def test_what_celery_derives_from_a_setting_of_the_project_is_left_to_it() -> None:
    assert project(accept_content=["json", "pickle"]).backend.accept == {"application/json", PICKLE}
    assert project(accept_content=["auth"]).conf.result_accept_content == ["auth", "json"]
    assert project(accept_content=["pickle"], result_accept_content=["json"]).conf.result_accept_content == ["json"]
    assert project().backend.accept == {"application/json"}
    assert project(enable_utc=False).timezone == stock.Celery("x", set_as_current=False, enable_utc=False).timezone
    assert project(enable_utc=False, timezone="Asia/Tokyo").conf.timezone == "Asia/Tokyo"
    extended = project(task_serializer="pickle").conf.result_extended
    elsewhere = project(task_serializer="pickle", backend="db+sqlite://").conf.result_extended
    assert (extended, elsewhere) == (True, False)


def test_without_utc_the_beat_follows_the_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(vars(zones), "local", ZoneInfo("Asia/Tokyo"))
    app = project(enable_utc=False, beat_schedule={"early": {"task": "early", "schedule": crontab(hour=3, minute=0)}})

    @app.task(name="early", shared=False)
    def early() -> None: ...

    with in_process(app, start="2026-03-01T12:00") as tasks:
        tasks.start_beat()
        tasks.advance("1d")
        assert [run.at.astimezone(UTC).hour for run in tasks.runs] == [18]


def test_send_task_takes_a_name() -> None:
    app = project()

    @app.task(name="shop.pay", shared=False)
    def pay() -> None: ...

    with pytest.raises(TypeError, match=r"pass 'shop.pay', or call its apply_async\(\)"):
        app.send_task(pay)
    with pytest.raises(TaskappError, match="not None; pass its name as text"):
        app.send_task(None)


def test_queues_are_celerys_own_until_taskapp_queues_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    app = project()
    assert (app.conf.task_default_queue, app.conf.task_create_missing_queues) == ("celery", True)
    assert app.queue_names() == ("celery",)
    app.check_queue("emails")

    monkeypatch.setenv("TASKAPP_QUEUES", "default,slow")
    app = project()
    assert app.queue_names() == ("default", "slow")
    with pytest.raises(UnknownQueue, match=r"'slw'.*did you mean 'slow'"):
        app.check_queue("slw")


def test_declared_queues_are_served_in_their_order() -> None:
    app = project(task_queues={"urgent": {}, "usual": {}}, task_default_queue="usual")

    assert app.transport_options["queue_order"] == ("urgent", "usual")


def test_django_s_time_zone_is_kept_as_celery_does() -> None:
    app = project()
    app.config_from_object(types.SimpleNamespace(TIME_ZONE="America/Chicago"), namespace="CELERY")

    assert app.conf.timezone == "America/Chicago"
    assert project().conf.timezone == "UTC"


def test_options_of_the_broker_are_merged_key_by_key() -> None:
    app = project(broker_transport_options={"socket_timeout": 3, "priority_steps": [0, 3]})

    assert app.transport_options["socket_timeout"] == 3
    assert app.transport_options["lease_seconds"] == 15
    assert len(app.transport_options["priority_steps"]) == 10
    app.conf.broker_transport_options = {"socket_timeout": 4}
    assert (app.transport_options["socket_timeout"], app.transport_options["lease_seconds"]) == (4, 15)


WRONG = {
    "misspelt": ({"taskapp_lease_second": 7}, UnknownSetting, "second; did you mean taskapp_lease_seconds"),
    "out of range": ({"taskapp_lease_seconds": 0}, InvalidSetting, "setting taskapp_lease_seconds cannot be 0"),
    "scheme": ({"broker": "http://host"}, InvalidSetting, r"setting broker_url cannot be '\*\*\*': no broker has"),
    "rpc": ({"backend": "rpc://"}, InvalidSetting, "setting result_backend cannot be .* rpc:// sends results to one"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_setting_is_named_as_it_was_written_each_time(case: str) -> None:
    options, kind, text = WRONG[case]
    app = project(**options)

    for _ in range(2):
        with pytest.raises(kind, match=text):
            _ = app.conf.task_acks_late
        with pytest.raises(kind, match=text):
            _ = app.settings


def test_an_app_reads_no_settings_and_opens_nothing_until_it_is_used() -> None:
    code = (
        "import socket; socket.socket.connect = None\n"
        "from taskapp import Celery, shared_task\n"
        "app = Celery('proj', broker='redis://127.0.0.1:1/0')\n"
        "app.conf.update(task_acks_late=True); app.conf.task_routes = {}\n"
        "@app.task\ndef add(x, y): return x + y\n"
        "@shared_task\ndef mul(x, y): return x * y\n"
        "import sys; print('taskapp.settings' in sys.modules)"
    )
    env = clean_environment(TASKAPP_NOSUCH="1")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)

    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr


def test_calling_a_task_and_running_it_eagerly_needs_no_broker() -> None:
    app = Celery("proj", set_as_current=False, task_always_eager=True, taskapp_embedded="never")

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    assert add(1, 2) == add.apply((1, 2)).get() == add.delay(1, 2).get() == 3


def test_an_app_survives_pickling() -> None:
    app = pickle.loads(pickle.dumps(by_update()))

    assert isinstance(app, Celery)
    assert (app.conf.task_acks_late, app.settings.lease_seconds) == (False, 7)


# --- which app --------------------------------------------------------------------------------


def owner_in_thread(code: str) -> str:
    """Return the app to which a shared task belongs in a new thread, after ``code``."""
    code = f"""
import threading
from celery import shared_task
@shared_task(name="t")
def t(): ...
{code}
found = []
thread = threading.Thread(target=lambda: found.append(t.app.main))
thread.start(); thread.join()
print(t.app.main, found[0])
"""
    env = clean_environment(TASKAPP_BROKER_URL=REDIS)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True).stdout


PROJECT = "from taskapp import Celery\napp = Celery('proj', broker='redis://127.0.0.1:1/0')\n"
SHIPPED = "import taskapp.celery\n"


@pytest.mark.parametrize("code", [PROJECT, SHIPPED + PROJECT, PROJECT + SHIPPED], ids=["alone", "after", "before"])
def test_shared_tasks_belong_to_the_projects_app_in_all_threads(code: str) -> None:
    assert owner_in_thread(code) == "proj proj\n"


def test_shared_tasks_belong_to_the_app_that_ships_if_there_is_no_other() -> None:
    assert owner_in_thread(SHIPPED) == "taskapp taskapp\n"


def test_the_first_of_several_apps_is_the_one_of_other_threads() -> None:
    # As in Celery, the last one is current where it was created.
    assert owner_in_thread(PROJECT + "other = Celery('other')") == "other proj\n"


def test_a_stock_app_that_takes_shared_tasks_away_is_warned_of() -> None:
    code = "import celery\nother = celery.Celery('stock', broker='memory://')\nother.finalize()"
    env = clean_environment(TASKAPP_BROKER_URL=REDIS)
    for before, taken, warned in (
        (PROJECT, code, True),
        (PROJECT, code.replace(")\n", ", set_as_current=False)\n"), False),
    ):
        argv = [sys.executable, "-c", before + taken]
        said = subprocess.run(argv, capture_output=True, text=True, env=env, check=True).stderr
        assert ("the app 'stock' of stock Celery takes the @shared_task types" in said) is warned


def test_two_apps_in_one_process_have_task_types_and_settings_of_their_own() -> None:
    one, other = project(taskapp_max_payload_bytes=2_000), project(taskapp_max_payload_bytes=3_000)

    @one.task(name="only.one", shared=False)
    def only() -> None: ...

    assert "only.one" in one.tasks
    assert "only.one" not in other.tasks
    assert (one.settings.max_payload_bytes, other.settings.max_payload_bytes) == (2_000, 3_000)


def test_a_thread_of_a_web_server_submits_to_the_app_that_its_settings_name() -> None:
    app = Celery("threads", broker=REDIS, set_as_current=False)
    seen: list[str] = []

    @app.task
    def work() -> None: ...

    thread = threading.Thread(target=lambda: seen.append(work.app.conf.broker_url))
    thread.start()
    thread.join()
    assert seen == [REDIS]


# --- what is said -----------------------------------------------------------------------------


WEAKER = {
    "task_acks_late": False, "task_reject_on_worker_lost": False, "worker_pool": "prefork",
    "accept_content": ["json", "pickle"], "result_accept_content": ["json", "yaml"],
    "beat_scheduler": "celery.beat:PersistentScheduler",
}  # fmt: skip


@pytest.mark.parametrize("setting", WEAKENING)
def test_each_setting_that_weakens_a_promise_is_obeyed_and_remarked_upon(setting: str) -> None:
    app = project(**{setting: WEAKER[setting]})

    assert app.conf[setting] == WEAKER[setting]
    assert [(remark.setting, remark.weakens) for remark in remarks_on(app)] == [(setting, True)]


def test_settings_that_no_longer_do_anything_are_named() -> None:
    options = {"visibility_timeout": 3600}
    app = project(
        worker_prefetch_multiplier=8,
        worker_disable_prefetch=False,
        worker_max_tasks_per_child=100,
        broker_transport_options=options,
        task_protocol=1,
    )

    assert [remark.setting for remark in remarks_on(app)] == [
        "task_protocol", "worker_prefetch_multiplier", "worker_max_tasks_per_child",
        "broker_transport_options['visibility_timeout']",
    ]  # fmt: skip
    assert not any(remark.weakens for remark in remarks_on(app))


def test_what_resembles_a_setting_or_an_option_is_told_apart_from_names_of_the_project() -> None:
    app = project(task_default_quue="x", retries_of_the_shop=3, CELERYD_CONCURRENCY=2)

    @app.task(name="shop.pay", shared=False, max_retires=3, autoretry_fr=(OSError,), audience="web")
    def pay() -> None: ...

    assert [
        (remark.setting, remark.text.partition("; ")[2]) for remark in remarks_on(app) if "did you" in remark.text
    ] == [
        ("task_default_quue", "did you mean task_default_queue?"),
        ("max_retires of the task type 'shop.pay'", "did you mean max_retries?"),
        ("autoretry_fr of the task type 'shop.pay'", "did you mean autoretry_for?"),
    ]


def test_tasks_have_their_id_in_the_headers_with_the_old_protocol_as_well() -> None:
    message = project(task_protocol=1).amqp.create_task_message("an id", "proj.add", (1, 2), {})

    assert (message.headers["id"], message.headers["task"]) == ("an id", "proj.add")


def test_a_variable_that_the_project_overrules_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKAPP_BROKER_URL", "redis://elsewhere/0")
    monkeypatch.setenv("TASKAPP_LEASE_SECONDS", "9")
    monkeypatch.setenv("TASKAPP_QUEUES", "default")
    forget_settings()
    try:
        app = project(taskapp_lease_seconds=7)
        _ = app.settings
        assert [(remark.setting, remark.text) for remark in remarks_on(app)] == [
            ("TASKAPP_LEASE_SECONDS", "the app's configuration sets taskapp_lease_seconds"),
            ("TASKAPP_BROKER_URL", "the app's configuration sets broker_url"),
        ]
    finally:
        forget_settings()


def test_what_is_set_too_late_is_named() -> None:
    app = project()
    assert app.settings.lease_seconds == 15
    app.conf.taskapp_lease_seconds = 7

    late = "it was set after the configuration had been read"
    assert [(remark.setting, remark.text) for remark in remarks_on(app)] == [("taskapp_lease_seconds", late)]


def test_periodic_tasks_outlive_the_search_for_a_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Celery("late", set_as_current=False, taskapp_embedded="never")
    app.conf.beat_schedule["job"] = {"task": "x", "schedule": 1.0}
    monkeypatch.setenv("TASKAPP_BROKER_URL", REDIS)
    app.find_broker()

    assert app.conf.broker_url == REDIS
    assert set(app.conf.beat_schedule) == {"job"}


def test_nothing_is_said_about_what_taskapp_sets_itself_or_what_weakens_nothing() -> None:
    assert remarks_on(project()) == []
    assert remarks_on(project(task_acks_late=True, accept_content=["json", "msgpack"])) == []


# --- the task types that ship -----------------------------------------------------------------


def test_the_types_that_ship_belong_to_every_app_of_taskapp_and_to_no_other() -> None:
    code = PROJECT + (
        "from celery import Celery as Stock\n"
        "early = Celery('early', broker='redis://127.0.0.1:1/0', set_as_current=False); early.finalize()\n"
        "from taskapp.tasks import add\n"
        "stock = Stock('stock', set_as_current=False); stock.finalize()\n"
        "names = ['taskapp.add' in each.tasks for each in (app, early, stock)]\n"
        "print(add.app.main, *names, add.apply((1, 2)).get())"
    )
    env = clean_environment(TASKAPP_BROKER_URL=REDIS)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True)

    assert done.stdout == "proj True True False 3\n"


def test_a_type_with_a_backend_of_its_own_uses_it() -> None:
    app = project()
    backend = NoResults(app)

    @app.task(backend=backend, shared=False)
    def own() -> None: ...

    @app.task(shared=False)
    def usual() -> None: ...

    assert own.backend is own.AsyncResult("x").backend is backend
    assert usual.AsyncResult("x").backend is app.backend
