"""What a task type masks is masked wherever taskapp shows it; the message itself stays as it is."""

from __future__ import annotations

import base64
import json
import subprocess
import urllib.parse
import urllib.request
from typing import Any

import pytest

from taskapp.app.masks import HIDDEN
from taskapp.monitor.task_state import State
from tests.integration.history.conftest import JOBS, Deployment
from tests.support import eventually, run_python, start_flower

SECRET = "correct-horse-battery-staple"
DEEP = "{'deep': {'token': [7, 'correct-horse-battery-staple'], 'x': 1}}"
NO_SUCH = "no.such.module"


def taskapp(deployment: Deployment, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "taskapp", *arguments, env={**deployment.variables(), **more}, cwd=deployment.directory)


def becomes(deployment: Deployment, task_id: str, state: State) -> dict[str, Any]:
    """Wait until a task is in ``state``; return what ``taskapp task show --json`` says of it then."""

    def shown() -> dict[str, Any] | None:
        told: dict[str, Any] = json.loads(taskapp(deployment, "task", "show", task_id, "--json").stdout)
        return told if told["state"] == state else None

    return eventually(shown, within_seconds=30)


SHOWN = {
    f"login.apply_async(('ann', {SECRET!r}), countdown=900)": ("delayed", "('ann', '***')", "{}", ""),
    f"login.delay('ann', {SECRET!r})": ("succeeded", "('ann', '***')", "{}", ""),
    f"login.delay('ann', password={SECRET!r}, settings={DEEP})": (
        "succeeded", "('ann',)", "{'password': '***', 'settings': {'deep': {'token': '***', 'x': 1}}}", "",
    ),
    f"login.delay('fails', {SECRET!r})": ("dead", "('fails', '***')", "{}", "***"),
    f"tries_login.delay('ann', {SECRET!r})": ("retrying", "('ann', '***')", "{}", "ValueError: ann may not use ***"),
    f"secret.delay({SECRET!r}, fails=True)": ("dead", "***", "***", "ValueError"),
    f"secret.apply_async(({SECRET!r},), countdown=900)": ("delayed", "***", "***", ""),
    "returns.delay('open')": ("succeeded", "['open']", "{}", ""),
}  # fmt: skip
"""What is submitted, and what is shown of it."""


def test_a_task_is_shown_without_its_secrets(deployment: Deployment) -> None:
    deployment.node()
    ids = deployment.submit(f"[{', '.join(SHOWN)}]")

    for task_id, (call, (state, args, kwargs, error)) in zip(ids, SHOWN.items(), strict=True):
        told = becomes(deployment, task_id, State(state))
        printed = taskapp(deployment, "task", "show", task_id, "--traceback").stdout

        assert (told["args"], told["kwargs"], told["error"]) == (args, kwargs, error), call
        assert SECRET not in json.dumps(told) + printed
        assert args in printed
        retried = [each["detail"] for each in told["timeline"] if each["what"] == "retried"]
        assert retried == ([f"attempt 1: {error}"] if state == "retrying" else [])


def test_dead_letters_are_shown_without_their_secrets_and_kept_and_replayed_with_them(deployment: Deployment) -> None:
    deployment.node()
    failed, hidden = deployment.submit(f"[login.delay('fails', {SECRET!r}), secret.delay({SECRET!r}, fails=True)]")
    becomes(deployment, failed, State.DEAD)
    becomes(deployment, hidden, State.DEAD)

    listed = taskapp(deployment, "dead", "list").stdout
    letters = {
        each["id"]: each for each in map(json.loads, taskapp(deployment, "dead", "list", "--json").stdout.splitlines())
    }
    shown = {
        task_id: taskapp(deployment, "dead", "show", letters[task_id]["letter"]).stdout for task_id in (failed, hidden)
    }
    # Of a message all but its arguments is binary.
    raw = taskapp(deployment, "dead", "show", letters[failed]["letter"], "--raw").stdout

    assert SECRET not in listed + "".join(shown.values()) + letters[failed]["error"] + letters[hidden]["error"]
    assert 'args        ["fails", "***"]' in shown[failed]
    assert "error       ValueError\n" in shown[hidden]
    assert 'args        "***"' in shown[hidden]
    assert SECRET in raw
    assert SECRET.encode() in base64.b64decode(letters[failed]["raw_base64"])

    taskapp(deployment, "dead", "replay", letters[failed]["letter"])
    again = eventually(lambda: json.loads(taskapp(deployment, "dead", "list", "--task", "ends.login", "--json").stdout))
    assert SECRET.encode() in base64.b64decode(again["raw_base64"])


def test_flower_shows_letters_and_schedules_without_their_secrets(deployment: Deployment) -> None:
    deployment.node()
    failed = deployment.submit(f"login.delay('fails', {SECRET!r})")
    becomes(deployment, failed, State.DEAD)
    [letter] = map(json.loads, taskapp(deployment, "dead", "list", "--json").stdout.splitlines())
    add = ("schedules", "add", "nightly", "ends.login", "every 1h", "--args", '["ann"]')
    taskapp(deployment, *add, "--kwargs", json.dumps({"password": SECRET}))
    flower, address = start_flower(
        deployment.directory, TASKAPP_BROKER_URL=deployment.server.url, TASKAPP_INCLUDE=JOBS
    )  # fmt: skip

    def data(path: str) -> str:
        with urllib.request.urlopen(f"{address}/{path}", timeout=20) as answer:
            return answer.read().decode()

    try:
        one = data(f"dead-letters/data?show={urllib.parse.quote(letter['letter'])}")
        schedule = data("schedules/data?show=nightly")
        pages = [one, schedule, data("dead-letters/data"), data("schedules/data")]
    finally:
        flower.close()
    assert [SECRET in page for page in pages] == [False] * 4
    assert '\\"fails\\"' in one
    assert '\\"***\\"' in one
    assert '\\"***\\"' in schedule


def test_schedules_are_shown_without_their_secrets_and_exported_with_them(deployment: Deployment) -> None:
    add = ("schedules", "add", "nightly", "ends.login", "every 1h", "--args", '["ann"]')
    added = taskapp(deployment, *add, "--kwargs", json.dumps({"password": SECRET}))
    assert added.returncode == 0, added.stderr

    shown = [
        taskapp(deployment, "schedules", *rest).stdout
        for rest in (("show", "nightly"), ("show", "nightly", "--json"), ("list", "--json"))
    ]

    assert [(SECRET in text, "***" in text, "ann" in text) for text in shown] == [(False, True, True)] * 3
    assert SECRET in taskapp(deployment, "schedules", "export").stdout


def test_what_cannot_be_known_is_not_shown(deployment: Deployment) -> None:
    """A module that should say what is masked cannot be imported."""
    task_id = deployment.submit(f"login.apply_async(('ann', {SECRET!r}), countdown=900)")

    shown = taskapp(deployment, "task", "show", task_id, TASKAPP_INCLUDE=NO_SUCH)

    assert "***" in shown.stdout
    assert SECRET not in shown.stdout
    assert "see TASKAPP_INCLUDE" in shown.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", ""),
        ("ValueError: x", "ValueError"),
        ("a.B: x: y", "a.B"),
        (SECRET, "***"),
        ("Traceback (most …):\n", "***"),
    ],
)
def test_of_an_error_of_which_nothing_is_known_only_its_name_is_told(text: str, told: str) -> None:
    assert HIDDEN.strike(text) == told
