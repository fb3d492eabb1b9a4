"""Task types of an app that signs its tasks; keys and notes lie in ``SIGNED_DIR``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from taskapp.app.task import Task
from taskapp.celery import app

HERE = Path(os.environ["SIGNED_DIR"])
RAN = HERE / "ran"

app.conf.update(
    security_key=str(HERE / "key.pem"),
    security_certificate=str(HERE / "certificate.pem"),
    security_cert_store=str(HERE / "*.pem.trusted"),
    task_serializer="auth",
    # Celery's events may be signed, too; then kombu's producer sends tasks, not ours.
    event_serializer=os.environ.get("SIGNED_EVENTS", "json"),
    accept_content=["auth"],
)
app.setup_security()


@app.task(name="signed.note")
def note(text: Any) -> Any:
    """Note ``text``, which is returned."""
    with RAN.open("a") as ran:
        ran.write(f"{text}\n")
    return text


@app.task(name="signed.other")
def other(text: Any) -> None:
    """Note that this ran in the place of another type."""
    note(f"other {text}")


@app.task(name="signed.total")
def total(values: list[int]) -> int:
    """Add ``values``."""
    return sum(values)


@app.task(name="signed.again", bind=True, max_retries=2)
def again(self: Task) -> int:
    """Succeed at the second attempt."""
    if not self.request.retries:
        raise self.retry(countdown=0.1)
    return int(self.request.retries)
