from __future__ import annotations

import subprocess
import sys

from celery.app import defaults
from kombu import Connection as KombuConnection

from taskapp.app.configuration import configuration
from taskapp.settings import load_settings
from taskapp.transport.transport import Connection, Transport
from tests.support import clean_environment


def test_importing_the_package_is_light() -> None:
    code = "import sys, taskapp; print(sorted({'celery', 'kombu', 'redis', 'pydantic'} & set(sys.modules)))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_importing_the_tasks_loads_nothing_heavy_and_opens_no_connection() -> None:
    code = (
        "import socket, sys; socket.socket.connect = None; import taskapp.tasks; "
        "print(sorted({'duckdb', 'matplotlib', 'numpy', 'httpx', 'jinja2', 'flower'} & set(sys.modules)))"
    )

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_configured_name_is_one_celery_has() -> None:
    known = (
        set(defaults.flatten_keys)
        if hasattr(defaults, "flatten_keys")
        else {n for n, _ in defaults.flatten(defaults.NAMESPACES)}
    )

    assert set(configuration(load_settings({}), "redis://localhost/0", ships_task_types=True)) <= known


def test_our_transport_stays_ours() -> None:
    assert Connection("redis://localhost/0").get_transport_cls() is Transport
    assert KombuConnection("redis://localhost/0").get_transport_cls() is not Transport
    assert Connection("redis://localhost/0").as_uri().startswith("redis://")
    assert Connection("amqp://localhost//").get_transport_cls().driver_type == "amqp"


def test_only_json_is_accepted() -> None:
    conf = configuration(load_settings({}), "redis://localhost/0", ships_task_types=True)

    assert conf["accept_content"] == conf["result_accept_content"] == ["json"]


def test_task_types_of_ours_leave_celerys_own_class_alone() -> None:
    # Bound to an app, it would hand the settings of that one to the tasks of every other app in the process.
    code = "import taskapp.tasks, celery; taskapp.tasks.add.name; print(celery.Task.__dict__['acks_late'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


def test_the_app_can_be_imported_in_a_django_project() -> None:
    code = "import taskapp.celery; print(type(taskapp.celery.app.loader).__name__)"
    env = clean_environment(TASKAPP_BROKER_URL="redis://127.0.0.1:1/0", DJANGO_SETTINGS_MODULE="any.settings")

    argv = [sys.executable, "-W", "ignore", "-c", code]
    assert subprocess.run(argv, capture_output=True, text=True, check=True, env=env).stdout == "TaskLoader\n"
