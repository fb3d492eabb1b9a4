"""Task types that block one another until a file appears."""

from __future__ import annotations

import os
import time
from pathlib import Path

from taskapp import shared_task


def _wait() -> None:
    path = Path(os.environ["OPENED"])
    while not path.exists():
        time.sleep(0.02)


@shared_task(rate_limit="1/h", rate_key="{tenant}")
def rated(tenant: str) -> None: ...


@shared_task(max_concurrency={"{tenant}": 1, "all": 2})
def crowded(tenant: str) -> None:
    _wait()


@shared_task(unique_key="{document}", on_duplicate="latest")
def index(document: str) -> None:
    _wait()


@shared_task(max_concurrency=1, on_busy="drop")
def only() -> None:
    _wait()


@shared_task(rate_limit="1/h", rate_key="{card}", masks=("card",))
def charge(card: str) -> None: ...


@shared_task(rate_limit="1/h")
def hourly() -> None: ...
