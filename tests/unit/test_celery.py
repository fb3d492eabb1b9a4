from __future__ import annotations

import subprocess
import sys

import pytest
from celery.app import defaults
from kombu import Connection as KombuConnection

from taskapp.app.application import Application
from taskapp.app.configuration import configuration
from taskapp.errors import ConfigurationReplaced
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

    assert set(configuration(load_settings({}), "redis://localhost/0")) <= known


def test_our_transport_stays_ours() -> None:
    assert Connection("redis://localhost/0").get_transport_cls() is Transport
    assert KombuConnection("redis://localhost/0").get_transport_cls() is not Transport
    assert Connection("redis://localhost/0").as_uri().startswith("redis://")
    assert Connection("amqp://localhost//").get_transport_cls().driver_type == "amqp"


def test_only_json_is_accepted() -> None:
    conf = configuration(load_settings({}), "redis://localhost/0")

    assert conf["accept_content"] == conf["result_accept_content"] == ["json"]


def test_task_types_of_ours_leave_celerys_own_class_alone() -> None:
    # Bound to an app, it would hand the settings of that one to the tasks of every other app in the process.
    code = "import taskapp.tasks, celery; taskapp.tasks.add.name; print(celery.Task.__dict__['acks_late'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


REPLACING = {
    "object": "app.config_from_object({'task_acks_late': False})",
    "module": "app.config_from_object('celeryconfig', namespace='CELERY')",
    "forced": "app.config_from_object('celeryconfig', silent=True, force=True)",
    "variable": "app.config_from_envvar('CELERY_CONFIG_MODULE', silent=True)",
}


@pytest.mark.parametrize("call", REPLACING.values(), ids=REPLACING)
def test_a_configuration_that_would_replace_ours_is_refused(call: str) -> None:
    app = Application("shop", set_as_current=False)

    with pytest.raises(ConfigurationReplaced, match=r"app\.config_from.* app\.conf\.update"):
        eval(call, {"app": app})
    app.conf.update(task_acks_late=True)
    app.config_from_cmdline(["task.time_limit=30"])

    assert (app.conf.task_acks_late, app.conf.task_time_limit) == (True, 30)


def test_the_option_for_a_configuration_is_refused_in_one_line() -> None:
    argv = [sys.executable, "-m", "celery", "-A", "taskapp", "--config", "celeryconfig", "report"]
    env = clean_environment(TASKAPP_BROKER_URL="redis://127.0.0.1:1/0", CELERY_CONFIG_MODULE="")

    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=env)

    assert done.returncode == 1
    assert done.stderr.startswith("Error: --config would replace")
    assert done.stderr.count("\n") == 1


def test_the_app_can_be_imported_in_a_django_project() -> None:
    code = "import taskapp.celery; print(type(taskapp.celery.app.loader).__name__)"
    env = clean_environment(TASKAPP_BROKER_URL="redis://127.0.0.1:1/0", DJANGO_SETTINGS_MODULE="any.settings")

    argv = [sys.executable, "-W", "ignore", "-c", code]
    assert subprocess.run(argv, capture_output=True, text=True, check=True, env=env).stdout == "Loader\n"
