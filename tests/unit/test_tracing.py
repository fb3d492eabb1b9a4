from __future__ import annotations

import sys

import pytest

from taskapp import tracing
from taskapp.errors.tracing import TracingUnavailable
from taskapp.settings import load_settings


def test_tracing_without_opentelemetry_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("opentelemetry", "taskapp.tracing."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)

    with pytest.raises(TracingUnavailable) as refusal:
        tracing.install(load_settings({"TASKAPP_TRACING": "1"}), lambda *_: None)

    assert str(refusal.value) == (
        "TASKAPP_TRACING needs the package opentelemetry; install it with pip install 'taskapp[tracing]'"
    )


@pytest.mark.parametrize(
    ("asked", "disabled", "is_on"), [("0", "", False), ("1", "", True), ("1", "true", False), ("1", "false", True)]
)
def test_the_variable_for_all_of_opentelemetry_switches_it_off_too(
    monkeypatch: pytest.MonkeyPatch, asked: str, disabled: str, is_on: bool
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", disabled)

    assert tracing.is_on(load_settings({"TASKAPP_TRACING": asked})) == is_on


@pytest.mark.parametrize(
    ("url", "system"),
    [
        (None, "redis"), ("rediss://host/0", "redis"), ("sentinel://host:26379", "redis"),
        ("amqp://host", "rabbitmq"), ("pyamqp://host", "rabbitmq"), ("sqs://", "sqs"),
    ],
)  # fmt: skip
def test_the_broker_has_the_name_conventions_give_it(url: str | None, system: str) -> None:
    assert tracing.system_of(url) == system
