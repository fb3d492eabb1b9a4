"""Tasks that end in every way a task can."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import chord, group
from celery.exceptions import Ignore, Reject
from pydantic import BaseModel

from taskapp.celery import app
from taskapp.client import protocol


def forged(name: str, *args: Any, **options: Any) -> Any:
    """Send a task as a producer would that checks no header."""
    check, protocol.check = protocol.check, lambda *_: None
    try:
        return app.send_task(name, *args, **options)
    finally:
        protocol.check = check


class Login(BaseModel):
    user: str
    password: str


@app.task(name="ends.returns")
def returns(value: Any) -> Any:
    return value


@app.task(name="ends.returns_async")
async def returns_async(value: Any) -> Any:
    return value


@app.task(name="ends.returns_in_child", cpu_bound=True)
def returns_in_child(value: Any) -> Any:
    return value


@app.task(name="ends.at_most_once", acks_late=False)
def at_most_once(value: Any, fails: bool = False) -> Any:
    if fails:
        raise ValueError("at most once")
    return value


@app.task(name="ends.fails")
def fails(text: str) -> None:
    raise ValueError(text)


@app.task(name="ends.fails_unkept", keeps_failures=False)
def fails_unkept() -> None:
    raise ValueError("not kept")


@app.task(name="ends.retries", bind=True, max_retries=2)
def retries(self: Any, succeeds_at: int) -> int:
    if self.request.retries < succeeds_at:
        raise self.retry(countdown=0, exc=ValueError("not yet"))
    return self.request.retries


@app.task(name="ends.ignored")
def ignored() -> None:
    raise Ignore("of no interest")


@app.task(name="ends.rejected")
def rejected() -> None:
    raise Reject("not mine", requeue=False)


@app.task(name="ends.replaced", bind=True)
def replaced(self: Any, value: Any) -> Any:
    raise self.replace(returns.s(value))


@app.task(name="ends.replaced_by_chord", bind=True)
def replaced_by_chord(self: Any) -> Any:
    raise self.replace(chord(group(returns.s(1), returns.s(2)), returns.s()))


@app.task(name="ends.dies")
def dies() -> None:
    os._exit(1)


@app.task(name="ends.overruns", cpu_bound=True, time_limit=1)
def overruns() -> None:
    time.sleep(60)


@app.task(name="ends.login", masks=("password", "token"))
def login(user: str, password: str, settings: dict[str, Any] | None = None) -> str:
    if user == "fails":
        raise ValueError(f"{user} may not use {password!r}, {password[:20]}...")
    return f"{user} has {password}"


@app.task(name="ends.login_model", masks=["password"])
def login_model(login: Login) -> str:
    return login.user


@app.task(name="ends.secret", sensitive=True)
def secret(value: str, fails: bool = False) -> str:
    if fails:
        raise ValueError(value)
    return value


@app.task(name="ends.tries_login", bind=True, masks=("password",), max_retries=2)
def tries_login(self: Any, user: str, password: str) -> None:
    raise self.retry(countdown=3_600, exc=ValueError(f"{user} may not use {password}"))
