"""The alerts: rules, their tests, their document and who hears of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.alerts.shortened import shortened

ROOT = Path(__file__).parents[2]
RULES = sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))
PROMTOOL_TESTS = ROOT / "deploy/prometheus/tests/taskapp_test.yml"
RENDER = ROOT / "deploy/alertmanager/render"
ADDRESSES = {"ALERT_WEBHOOK_URL": "http://hook.example/x?a=1&b=2", "ALERT_MAIL_TO": "team@example.com"}


def all_rules() -> list[dict[str, Any]]:
    loaded = (yaml.safe_load(path.read_text()) for path in RULES)
    return [rule for file in loaded for group in file["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in all_rules() if "alert" in rule}


def run(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    """One command; of Prometheus' tools, which a laptop may lack and CI may not."""
    if shutil.which(argv[0]) is None:
        missing = f"{argv[0]} is not installed (Debian: apt install prometheus prometheus-alertmanager)"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    return subprocess.run(argv, env={"PATH": os.environ["PATH"], **env}, capture_output=True, text=True, timeout=60)


@pytest.fixture
def rendered(tmp_path: Path) -> Path:
    done = run(str(RENDER), **ADDRESSES)
    assert done.returncode == 0, done.stderr
    (tmp_path / "alertmanager.yml").write_text(done.stdout)
    return tmp_path / "alertmanager.yml"


@pytest.mark.slow  # `make check` runs them
def test_rules_hold_in_the_tests_of_promtool() -> None:
    done = run("promtool", "test", "rules", str(PROMTOOL_TESTS))

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_seen_to_fire_and_not_to_fire_by_promtool(alert: str) -> None:
    tests = yaml.safe_load(PROMTOOL_TESTS.read_text())["tests"]
    asked = [test["promql_expr_test"] for test in tests if alert in json.dumps(test["promql_expr_test"])]

    assert asked, "no test has it fire"
    # One that also asks for a moment at which this alert does not fire.
    assert any(alert not in json.dumps(each.get("exp_samples", [])) for each in asked[0])


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_says_how_bad_it_is_what_it_means_and_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]

    assert alert.startswith("Taskapp")
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook"}
    # Several brokers in one Prometheus are told apart by their jobs.
    assert " by (" not in rule["expr"]


def test_the_document_lists_every_alert_as_the_rules_have_it() -> None:
    rows = [
        f"| `{name}` | {rule['labels']['severity']} | {rule['annotations']['description']} "
        f"| {rule['annotations']['runbook']} |"
        for name, rule in ALERTS.items()
    ]

    document = (ROOT / "docs/alerts.md").read_text().splitlines()
    assert [line for line in document if line.startswith("| `Taskapp")] == rows


def test_what_inhibits_and_what_is_inhibited_are_alerts() -> None:
    config = (ROOT / "deploy/alertmanager/alertmanager.yml").read_text()

    named = set(re.findall(r"Taskapp[A-Z]\w+", config))
    assert named
    assert named <= set(ALERTS)


def test_rules_made_short_are_rules_and_every_time_is_shorter(tmp_path: Path) -> None:
    for path in RULES:
        (tmp_path / path.name).write_text(shortened(path.read_text(), 30))

    done = run("promtool", "check", "rules", *(str(path) for path in sorted(tmp_path.iterdir())))

    assert done.returncode == 0, done.stdout + done.stderr
    text = (tmp_path / "taskapp.yml").read_text()
    assert "for: 1000ms" in text
    assert "[10000ms]" in text
    assert "> 0.667 # seconds" in text
    assert not re.search(r"\d(s|m|h)(\]|$)", text, re.MULTILINE)
    assert "vector(2) # seconds" in (tmp_path / "objectives.yml").read_text()


def test_alertmanager_takes_its_configuration_as_it_is_and_with_addresses(rendered: Path) -> None:
    for path in (ROOT / "deploy/alertmanager/alertmanager.yml", rendered):
        done = run("amtool", "check-config", str(path))
        assert done.returncode == 0, done.stdout + done.stderr
    assert "ALERT_" not in re.sub("#.*", "", rendered.read_text())


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_goes_to_whom_its_severity_says(alert: str, rendered: Path) -> None:
    severity = ALERTS[alert]["labels"]["severity"]

    done = run(
        "amtool", "config", "routes", "test", f"--config.file={rendered}",
        f"alertname={alert}", f"severity={severity}", "job=taskapp",
    )  # fmt: skip

    assert done.stdout.split() == [{"critical": "on-call", "warning": "team"}[severity]]


def test_both_receivers_get_mail_and_webhook_and_hear_the_end(rendered: Path) -> None:
    config = yaml.safe_load(rendered.read_text())

    assert {receiver["name"] for receiver in config["receivers"]} == {"team", "on-call"}
    for receiver in config["receivers"]:
        assert [each["to"] for each in receiver["email_configs"]] == ["team@example.com"]
        assert [each["url"] for each in receiver["webhook_configs"]] == ["http://hook.example/x?a=1&b=2"]
        assert all(each["send_resolved"] for each in receiver["email_configs"] + receiver["webhook_configs"])


def test_signs_that_mean_something_to_shell_sed_or_yaml_are_kept() -> None:
    nasty = r"""p&|'"\1 $HOME `id` #"""

    config = yaml.safe_load(
        run(
            str(RENDER), **ADDRESSES, ALERT_SMTP_PASSWORD=nasty, ALERT_SMTP_TLS="false", ALERT_PAGER_URL="http://p/"
        ).stdout
    )

    assert config["global"]["smtp_auth_password"] == nasty
    assert config["global"]["smtp_require_tls"] is False
    assert config["receivers"][1]["webhook_configs"][0]["url"] == "http://p/"


NOBODY = "nobody receives alerts: set ALERT_WEBHOOK_URL, ALERT_PAGER_URL or ALERT_MAIL_TO (in .env), or edit"
MAIL, HOOK, PAGER = ("mail", "team@example.com"), ("hook", "http://hook.example/"), ("hook", "http://pager.example/")


@pytest.mark.parametrize(
    ("env", "team", "on_call"),
    [
        ({}, [], []),
        ({"ALERT_MAIL_TO": MAIL[1]}, [MAIL], [MAIL]),
        ({"ALERT_WEBHOOK_URL": HOOK[1]}, [HOOK], [HOOK]),
        ({"ALERT_PAGER_URL": PAGER[1]}, [], [PAGER]),
        ({"ALERT_WEBHOOK_URL": HOOK[1], "ALERT_PAGER_URL": PAGER[1]}, [HOOK], [PAGER]),
        ({"ALERT_MAIL_TO": MAIL[1], "ALERT_WEBHOOK_URL": HOOK[1]}, [MAIL, HOOK], [MAIL, HOOK]),
    ],
)
def test_each_receiver_has_what_is_set_and_alertmanager_takes_it(
    env: dict[str, str], team: list[tuple[str, str]], on_call: list[tuple[str, str]], tmp_path: Path
) -> None:
    # As Compose does it: what is not in .env is empty.
    done = run(str(RENDER), **{"ALERT_MAIL_TO": "", "ALERT_WEBHOOK_URL": "", "ALERT_PAGER_URL": "", **env})
    path = tmp_path / "alertmanager.yml"
    path.write_text(done.stdout)

    assert done.returncode == 0
    assert done.stderr.startswith(NOBODY) if not env else done.stderr == ""
    told = [
        [("mail", each["to"]) for each in receiver.get("email_configs", ())]
        + [("hook", each["url"]) for each in receiver.get("webhook_configs", ())]
        for receiver in yaml.safe_load(done.stdout)["receivers"]
    ]
    assert told == [team, on_call]
    checked = run("amtool", "check-config", str(path))
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_a_setting_that_alertmanager_would_not_understand_is_refused() -> None:
    done = run(str(RENDER), **ADDRESSES, ALERT_SMTP_TLS="yes")

    assert done.returncode == 1
    assert done.stderr.startswith("ALERT_SMTP_TLS is 'yes'; it must be true or false")
    assert done.stdout == ""
