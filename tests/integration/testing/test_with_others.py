"""The kit with signed tasks, with Flask, and with an outbox; each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import clean_environment

ROOT = Path(__file__).parents[3]

SIGNED = """
from pathlib import Path
from celery import chord
from taskapp import Celery
from taskapp.errors.testing import UnusableMessage
from taskapp.testing import in_process
from tests.integration.test_signing import write_keys

here = Path(".").absolute()
write_keys(here)
app = Celery("signed")
app.conf.update(
    security_key=str(here / "key.pem"), security_certificate=str(here / "certificate.pem"),
    security_cert_store=str(here / "*.pem.trusted"), task_serializer="auth", accept_content=["auth"],
)
app.setup_security()

@app.task(name="add")
def add(x, y):
    return x + y

@app.task(name="total")
def total(values):
    return sum(values)

@app.task(name="later", bind=True)
def later(self):
    if self.request.retries < 2:
        raise self.retry(countdown=60)
    return self.request.retries

with in_process(app) as tasks:
    late = add.apply_async((1, 2), countdown=60, expires=120)
    assert chord([add.s(1, 2), add.s(3, 4)], total.s())().get() == 10
    retried = later.delay()
    tasks.advance("3m")
    assert (late.get(), retried.get()) == (3, 2)
    tasks.assert_submitted(add, 3, 4)
    with app.producer_or_acquire() as producer:
        producer.publish([[1, 1], {}, {}], routing_key="celery", headers={"task": "add", "id": "x"}, serializer="json")
    try:
        tasks.run_due()
    except UnusableMessage as error:
        assert "'application/json' is not in accept_content ['auth']" in str(error)
    else:
        raise AssertionError
"""

FLASK = """
from celery import shared_task
from flask import Flask, current_app
from taskapp.flask import celery_init_app
from taskapp.testing import in_process

flask = Flask("shop")
flask.config.from_mapping(CELERY={"broker_url": "redis://never.invalid/0"}, CURRENCY="EUR")
celery = celery_init_app(flask)

@shared_task(name="price")
def price(cents):
    return f"{cents} {current_app.config['CURRENCY']}"

@shared_task(name="async_price")
async def async_price(cents):
    return f"{cents} {current_app.config['CURRENCY']}"

with in_process(celery):
    assert price.delay(5).get() == "5 EUR"
    assert async_price.delay(6).get() == "6 EUR"
"""

OUTBOX = """
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from taskapp import Celery
from taskapp.outbox.sqlalchemy import metadata, with_session
from taskapp.testing import in_process
from tests.support import eventually

app = Celery("shop", broker="redis://never.invalid")

@app.task(name="add")
def add(x, y):
    return x + y

engine = create_engine("sqlite:///outbox.db")
metadata.create_all(engine)
with in_process(app) as tasks:
    with Session(engine) as session:
        never = with_session(session).delay(add, 1, 1)
        session.rollback()
        result = with_session(session).delay(add, 2, 3)
        assert not tasks.submitted
        session.commit()
    eventually(lambda: tasks.submitted)
    tasks.assert_submitted(add, 2, 3)
    assert result.get() == 5
    assert len(tasks.submitted) == 1
"""


@pytest.mark.parametrize("code", [SIGNED, FLASK, OUTBOX], ids=["signed", "flask", "outbox"])
def test_the_kit_works_with(code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60,
        env=clean_environment() | {"PYTHONPATH": str(ROOT), "TASKAPP_DATA_DIR": str(tmp_path)},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
