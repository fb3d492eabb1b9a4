"""What the next release of the web app brings."""

from __future__ import annotations

from celery import shared_task


@shared_task
def welcome() -> None:
    """Do nothing."""
