"""The demo's checks: each compares a result with something the tasks did not compute."""

from __future__ import annotations

import email
import email.policy
import hashlib
import json
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from taskapp.demo.flights import Truth
from taskapp.demo.pipeline import Pipeline

CATCH_UP_SECONDS = 10.0
"""How long the exporter may lag behind."""


@dataclass(frozen=True)
class Check:
    """One condition of the demo, and what was observed."""

    name: str
    passed: bool
    seen: str

    @property
    def mark(self) -> str:
        """A check mark or a cross."""
        return "✔" if self.passed else "✘"


def checks_of(pipeline: Pipeline, truth: Truth, *, report: Path, mail: Path, exporter_port: int) -> list[Check]:
    """Return every check, in the order of the job."""
    failures = pipeline.failures()
    counted = Counted(exporter_port)
    return [
        Check("every task succeeded", not failures, failures[0] if failures else "no failure"),
        *(_numbers(report_data(report), truth) if report.exists() else [Check("report written", False, "no file")]),  # noqa: FBT003
        _mail_holds_report(mail, report),
        _http_retried(pipeline),
        _urgent_first(pipeline),
        _beat_fired(counted),
        _exporter_agrees(pipeline, counted),
    ]


def report_data(report: Path) -> dict[str, Any]:
    """Return the numbers that the report embeds as JSON."""
    html = report.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="report-data">(.*?)</script>', html, re.DOTALL)
    data: dict[str, Any] = json.loads(found.group(1)) if found else {}
    return data


def _numbers(data: dict[str, Any], truth: Truth) -> list[Check]:
    tiles = data["tiles"]
    by_month = {row[0]: row[1] for row in data["sections"][0]["rows"]}
    by_carrier = {row[0]: row[1] for row in data["sections"][2]["rows"]}
    mean = tiles["mean delay, minutes"]
    return [
        Check(
            "flights and departures in the report",
            (tiles["flights"], tiles["departed"]) == (truth.flights, truth.departed),
            f"{tiles['flights']:,} and {tiles['departed']:,}; the file has {truth.flights:,} and {truth.departed:,}",
        ),
        Check(
            "mean delay",
            math.isclose(mean, truth.mean_delay_minutes, rel_tol=1e-9),
            f"{mean:.6f} min; the file has {truth.mean_delay_minutes:.6f}",
        ),
        Check("flights of every month", by_month == dict(truth.by_month), f"{len(by_month)} months compared"),
        Check("flights of every carrier", by_carrier == dict(truth.by_carrier), f"{len(by_carrier)} carriers compared"),
    ]


def _mail_holds_report(directory: Path, report: Path) -> Check:
    mails = [
        email.message_from_bytes(path.read_bytes(), policy=email.policy.default) for path in directory.glob("*.eml")
    ]
    attached = [
        hashlib.sha256(part.get_payload(decode=True)).digest()  # type: ignore[arg-type]  # a leaf has bytes
        for mail in mails
        for part in mail.iter_attachments()
    ]
    same = report.exists() and attached == [hashlib.sha256(report.read_bytes()).digest()]
    seen = f"{len(mails)} mail; its attachment {'is' if same else 'is not'} the report, byte for byte"
    return Check("the mail carries the report", same and len(mails) == 1, seen)


def _http_retried(pipeline: Pipeline) -> Check:
    retries = pipeline.retries("http request")
    result = pipeline.steps["http request"][0].result
    status = result.get("status") if isinstance(result, dict) else result
    return Check("503 twice, then 200", retries == 2 and status == 200, f"{retries} retries, status {status}")


def _urgent_first(pipeline: Pipeline) -> Check:
    last_urgent = max(pipeline.ended_at("urgent additions"))
    waiting = [*pipeline.ended_at("route statistics"), *pipeline.ended_at("months (chord)")]
    later = sum(ended > last_urgent for ended in waiting)
    return Check(
        "urgent tasks overtook earlier ones", later > len(waiting) // 2,
        f"{later} of {len(waiting)} tasks submitted before the urgent ones ended after the last of them",
    )  # fmt: skip


def _beat_fired(counted: Counted) -> Check:
    runs = _eventually(lambda: counted.completed("taskapp.canary"))
    return Check("beat ran its timed job", runs >= 1, f"{runs} runs of taskapp.canary")


def _exporter_agrees(pipeline: Pipeline, counted: Counted) -> Check:
    wanted = len(pipeline.steps["months (chord)"]) + len(pipeline.steps["route statistics"])
    _eventually(lambda: counted.completed("taskapp.data_processing") >= wanted)
    seen = counted.completed("taskapp.data_processing")
    return Check("the exporter counted every task", seen == wanted, f"{seen} of {wanted} data_processing")


class Counted:
    """The exporter's counters, scraped for each call."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/metrics"

    def completed(self, task_type: str) -> int:
        """Return ``taskapp_tasks_completed_total`` of ``task_type``, over all queues."""
        text = httpx.get(self._url, trust_env=False).text
        return sum(
            int(sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "taskapp_tasks_completed_total" and sample.labels["type"] == task_type
        )


def _eventually(condition: Callable[[], int]) -> int:
    deadline = time.monotonic() + CATCH_UP_SECONDS
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return value
