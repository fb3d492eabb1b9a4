"""Every alert, seen to fire when the real thing breaks and to resolve when it is mended.

All is broken at once and mended at once, in deployments that do not touch each other, so that it takes minutes and
not an hour; real Redis servers, nodes, beats and exporters, watched by Debian's Prometheus and Alertmanager.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from math import isfinite
from pathlib import Path
from typing import Protocol, TypeVar
from urllib.error import HTTPError

import pytest

from tests.alerts.faults import FAULTS, Fault, Labels
from tests.alerts.watched import TELLS, Deployment
from tests.alerts.watchers import Alertmanager, MailSink, Prometheus, Told, Webhook, missing_programs
from tests.support import RedisServer, eventually
from tests.unit.test_alerts import ALERTS
from tests.unit.test_dashboards import FILES, loaded, panels_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(500)]

Alert = tuple[str, Labels]


def alerts_of(fault: Fault, alerts: tuple[Alert, ...]) -> list[Alert]:
    return [(name, {"job": fault.job, **labels}) for name, labels in alerts]


EXPECTED = [alert for fault in FAULTS for alert in alerts_of(fault, fault.alerts)]
INHIBITED = [alert for fault in FAULTS for alert in alerts_of(fault, fault.inhibited)]
PANELS = [
    (f"{path.stem} {panel['id']} {target['refId']}", target["expr"])
    for path in FILES
    for panel in panels_of(loaded(path))
    for target in panel["targets"]
]
PHASE_SECONDS = 100.0
WELL = "min(count_over_time(taskapp_broker_up[15s])) >= 10 unless on () ALERTS"


class Closable(Protocol):
    def close(self) -> None: ...


Closed = TypeVar("Closed", bound=Closable)


def is_of(told: Labels, name: str, labels: Labels) -> bool:
    return {"alertname": name, **labels}.items() <= told.items()


class Story:
    """Notifications while all was well, broken, and repaired."""

    def __init__(self, directory: Path, redis_binary: str, stack: ExitStack) -> None:
        self._directory, self._binary, self._stack = directory, redis_binary, stack
        self.deployments = {name: self._deployment(name) for name in sorted({fault.job for fault in FAULTS})}
        self._start_nodes()
        self.webhook, self.mail = self._closed_at_the_end(Webhook()), self._closed_at_the_end(MailSink(directory))
        self.alertmanager = self._closed_at_the_end(
            Alertmanager(
                directory, ALERT_WEBHOOK_URL=self.webhook.url, ALERT_MAIL_TO="team@example.com",
                ALERT_SMTP_PORT=self.mail.port, ALERT_SMTP_TLS="false",
            )
        )  # fmt: skip
        for deployment in self.deployments.values():
            deployment.ready()
        ports = {name: deployment.port for name, deployment in self.deployments.items()}
        self.prometheus = self._closed_at_the_end(Prometheus(directory, ports, self.alertmanager.port))
        self.told_before: list[Told] = []
        self.drawn: dict[str, list[float] | str] = {}
        """By expression of a panel: its values in the midst of it all, or the error."""
        self.suppressed: list[Labels] = []
        self.seconds: dict[str, float] = {}
        """How long each phase took."""

    def all_is_well(self) -> None:
        """Go on when nothing fires and nothing is about to, though all was looked at for a while."""
        # Before the first scrape there is no exporter, which takes longer than it may where all times are divided.
        eventually(lambda: len(self.prometheus.query("taskapp_broker_up")) == len(self.deployments))
        eventually(lambda: not self.prometheus.query("ALERTS"))
        self.webhook.told.clear()
        self._phase("well", lambda: self.prometheus.query(WELL))
        self.told_before = list(self.webhook.told)

    def all_breaks(self) -> None:
        for fault in FAULTS:
            if fault.first:
                fault.first(self.deployments[fault.job])
                eventually(lambda fault=fault: all(self._fires(*alert) for alert in alerts_of(fault, fault.inhibited)))
            fault.breaks(self.deployments[fault.job])
        self._phase("broken", lambda: not self.not_suppressed() and not self.missing("firing"))
        self.drawn = {expression: self._draw(expression) for _, expression in PANELS}

    def all_is_mended(self) -> None:
        for fault in FAULTS:
            fault.mends(self.deployments[fault.job])
        self._phase("mended", lambda: not self.missing("resolved") and not self.firing())

    def firing(self) -> list[Labels]:
        """What Prometheus says now."""
        return [each["metric"] for each in self.prometheus.query('ALERTS{alertstate="firing"}')]

    def heard(self, status: str, name: str, labels: Labels) -> list[Told]:
        return [told for told in self.webhook.told if told.status == status and is_of(told.labels, name, labels)]

    def missing(self, status: str) -> list[Alert]:
        return [(name, labels) for name, labels in EXPECTED if not self.heard(status, name, labels)]

    def not_suppressed(self) -> list[Alert]:
        self.suppressed += self.alertmanager.silenced_by_another()
        return [alert for alert in INHIBITED if not any(is_of(labels, *alert) for labels in self.suppressed)]

    def _draw(self, expression: str) -> list[float] | str:
        for name in ("$job", "$queue", "$type"):
            expression = expression.replace(name, ".+")
        try:
            found = self.prometheus.query(expression.replace("$__rate_interval", "5m"))
        except HTTPError as error:
            return error.read().decode()
        return [float(each["value"][1]) for each in found]

    def _phase(self, name: str, is_over: Callable[[], object]) -> None:
        """Wait until it is over; where it takes too long, the tests say what was missing."""
        began_at = time.monotonic()
        with suppress(AssertionError):
            eventually(is_over, PHASE_SECONDS, every_seconds=0.2)
        self.seconds[name] = time.monotonic() - began_at

    def _fires(self, name: str, labels: Labels) -> bool:
        selector = ",".join(f'{label}="{value}"' for label, value in {"alertname": name, **labels}.items())
        return bool(self.prometheus.query(f'ALERTS{{alertstate="firing",{selector}}}'))

    def _deployment(self, name: str) -> Deployment:
        directory = self._directory / name
        directory.mkdir()
        deployment = Deployment(name, RedisServer(self._binary, directory), directory)
        return self._closed_at_the_end(deployment)

    def _start_nodes(self) -> None:
        shop, beats = self.deployments["taskapp-shop"], self.deployments["taskapp-beats"]
        shop.worker("main", "critical,high,default,low", **TELLS)
        shop.worker("bulk", "bulk", TASKAPP_ASYNC_SLOTS="1")
        shop.beat()
        shop.history()
        beats.worker("main", "critical")
        beats.worker("second", "default")
        beats.beat()

    def _closed_at_the_end(self, opened: Closed) -> Closed:
        self._stack.callback(opened.close)
        return opened


@pytest.fixture(scope="module")
def story(session_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    if missing := missing_programs():
        if os.environ.get("CI"):
            pytest.fail(f"not installed: {missing}")
        pytest.skip(f"not installed: {missing}")
    with ExitStack() as stack:
        story = Story(tmp_path_factory.mktemp("alerts"), session_server.binary, stack)
        story.all_is_well()
        story.all_breaks()
        story.all_is_mended()
        yield story


def test_there_is_a_fault_for_every_alert() -> None:
    assert sorted(name for name, _ in EXPECTED) == sorted(ALERTS)


def test_nothing_was_told_while_all_was_well(story: Story) -> None:
    assert story.seconds["well"] < PHASE_SECONDS, story.prometheus.query("ALERTS")
    assert [told for told in story.told_before if told.status == "firing"] == []


@pytest.mark.parametrize(("name", "labels"), EXPECTED, ids=lambda value: value if isinstance(value, str) else "")
def test_it_fires_when_the_thing_breaks_and_resolves_when_it_is_mended(story: Story, name: str, labels: Labels) -> None:
    firing = story.heard("firing", name, labels)
    assert firing, "the webhook was not told that it fires"
    assert story.heard("resolved", name, labels), "the webhook was not told that it is resolved"

    severity = ALERTS[name]["labels"]["severity"]
    assert {told.receiver for told in firing} == {"on-call" if severity == "critical" else "team"}
    for told in firing:
        assert told.annotations["runbook"] == ALERTS[name]["annotations"]["runbook"]
        assert not re.search("error expanding|no value|{{", told.annotations["summary"])


@pytest.mark.parametrize(("name", "labels"), INHIBITED, ids=lambda value: value if isinstance(value, str) else "")
def test_what_follows_from_another_fires_and_nobody_is_told(story: Story, name: str, labels: Labels) -> None:
    assert any(is_of(suppressed, name, labels) for suppressed in story.suppressed)
    # Alerts that had fired before were reported.
    if labels["job"] not in {fault.job for fault in FAULTS if fault.first}:
        assert not story.heard("firing", name, labels)


def test_nothing_fires_any_more_when_all_is_mended(story: Story) -> None:
    assert story.seconds["mended"] < PHASE_SECONDS, (story.missing("resolved"), story.firing())


def test_nobody_was_told_of_anything_else(story: Story) -> None:
    known = [*EXPECTED, *INHIBITED]

    firing = [told.labels for told in story.webhook.told if told.status == "firing"]
    assert [labels for labels in firing if not any(is_of(labels, *alert) for alert in known)] == []


@pytest.mark.parametrize("expression", [pytest.param(expression, id=name) for name, expression in PANELS])
def test_every_panel_has_something_to_draw(story: Story, expression: str) -> None:
    values = story.drawn[expression]

    assert isinstance(values, list), values
    assert any(map(isfinite, values)), values


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_choices_have_values_to_choose_from(story: Story, path: Path) -> None:
    for variable in loaded(path)["templating"]["list"][1:]:
        series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["definition"]).groups()
        found = story.prometheus.query(re.sub(r"\$\w+", ".+", series))
        assert len({each["metric"][label] for each in found}) > 1


def test_mails_tell_of_both_ends_too(story: Story) -> None:
    def subjects() -> list[str]:
        return re.findall(r"^Subject: (.*)", "\n".join(story.mail.texts()), re.MULTILINE)

    for state in ("FIRING:1", "RESOLVED"):
        assert eventually(
            lambda state=state: [line for line in subjects() if state in line and "TaskappBeatLate" in line]
        )
