"""What a task type keeps out of its history never reaches Redis' stream, let alone SQL."""

from __future__ import annotations

import pytest

from tests.integration.history.conftest import Deployment
from tests.support import eventually

SECRETS = ("correct-horse-battery-staple", "correct-horse'\\battery-staple-\N{LOCK}\n", 12345678901)


@pytest.mark.parametrize(
    ("call", "shown"),
    [
        ("login.delay('ann', {0!r})", ("('ann', '***')", "{}", "'ann has ***'", "")),
        ("login.delay('ann', password={0!r})", ("('ann',)", "{'password': '***'}", "'ann has ***'", "")),
        (
            "login.delay('ann', 'public', {{'deep': {{'token': {0!r}, 'x': 1}}}})",
            ("('ann', '***', {'deep': {'token': '***', 'x': 1}})", "{}", "'ann has ***'", ""),
        ),
        ("login_model.delay(Login(user='ann', password=str({0!r})))", None),
        ("app.send_task('ends.login_model', kwargs={{'login': {{'user': 'ann', 'password': [1, {0!r}]}}}})", None),
        ("secret.delay({0!r})", ("***", "***", "***", "")),
        ("secret.delay({0!r}, fails=True)", ("***", "***", "", "ValueError")),
        ("login.delay('fails', {0!r})", None),
        ("app.send_task('ends.login', ('ann',), {{'password': {0!r}, 'unknown': 2}})", None),
        ("forged('ends.login', ('ann', {0!r}), headers={{'timelimit': 'soon'}})", None),
    ],
)
def test_a_secret_stands_nowhere_in_what_is_told(
    deployment: Deployment, call: str, shown: tuple[str, ...] | None
) -> None:
    deployment.node()
    calls = ", ".join(call.format(secret) for secret in SECRETS)
    first, *others = deployment.submit(f"[{calls}]")

    eventually(lambda: deployment.waiting() == len(SECRETS))
    raw = b"".join(deployment.server_bytes())
    for secret in SECRETS:
        for at in range(len(str(secret)) - 8):
            assert str(secret)[at : at + 9].encode() not in raw

    deployment.writer()
    end = deployment.end_of(first)
    assert "ann" in end.args + end.kwargs or shown is None or shown[0] == "***"
    if shown is not None:
        assert (end.args, end.kwargs, end.result, end.error) == shown
    assert all(deployment.end_of(task_id).state == end.state for task_id in others)
