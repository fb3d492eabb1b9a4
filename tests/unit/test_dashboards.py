"""The dashboards as Grafana reads them, and what the compose file gives it and Prometheus to read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "deploy/grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
BUILT_IN = {"__rate_interval"}
UNITS = {"none", "s", "ops", "bytes", "percentunit"}
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def loaded(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def panels_of(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from (panel for panel in board["panels"] if panel["type"] != "row")


each_board = pytest.mark.parametrize("board", [loaded(path) for path in FILES], ids=[path.stem for path in FILES])


def test_there_are_two_and_each_is_what_its_tables_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(GRAFANA)
    import build

    made = {name: build.text(content) for name, content in build.dashboards()}

    assert len(made) == 2
    assert made == {path.name: path.read_text() for path in FILES}, "run python deploy/grafana/build.py"


def test_names_are_unique() -> None:
    boards = [loaded(path) for path in FILES]

    assert len({board["uid"] for board in boards}) == len({board["title"] for board in boards}) == len(boards)


@each_board
def test_panels_have_what_grafana_needs_and_people_want(board: dict[str, Any]) -> None:
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in panels_of(board):
        assert panel["type"] in {"stat", "timeseries"}, "graph, singlestat and their kin are no more"
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["description"].endswith(".")
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        assert len({target["legendFormat"] for target in panel["targets"]}) == len(panel["targets"])


@each_board
def test_titles_are_unique_within_a_row(board: dict[str, Any]) -> None:
    row, seen = "", set()
    for panel in board["panels"]:
        row = panel["title"] if panel["type"] == "row" else row
        assert (row, panel["title"], panel["type"]) not in seen
        seen.add((row, panel["title"], panel["type"]))


@each_board
def test_panels_do_not_overlap(board: dict[str, Any]) -> None:
    def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
        return all(
            one[at] < other[at] + other[size] and other[at] < one[at] + one[size]
            for at, size in (("x", "w"), ("y", "h"))
        )

    places = [panel["gridPos"] for panel in board["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    assert not [pair for pair in combinations(places, 2) if overlap(*pair)]


@each_board
def test_the_datasource_and_every_choice_is_a_variable(board: dict[str, Any]) -> None:
    variables = {variable["name"] for variable in board["templating"]["list"]}
    text = json.dumps(board)

    assert variables >= {"datasource", "job"}
    assert set(re.findall(r"\$\{?(\w+)", text)) - {"__all"} <= variables | BUILT_IN
    asking = [*panels_of(board), *(target for panel in panels_of(board) for target in panel["targets"])]
    assert all(each["datasource"] == {"type": "prometheus", "uid": "${datasource}"} for each in asking)
    # Two exporters of one broker count once, and a broker that was not chosen does not count.
    asked = " ".join(target["expr"] for panel in panels_of(board) for target in panel["targets"])
    assert len(re.findall(r"taskapp_", asked)) == len(re.findall(r'\(taskapp_\w+\{job=~"\$job"', asked))
    assert len(re.findall(r"taskapp_", asked)) == len(re.findall(r"max without \(instance\)", asked))


def test_what_is_provisioned_is_where_compose_puts_it() -> None:
    mounts = dict(each.split(":")[:2] for each in COMPOSE["services"]["grafana"]["volumes"])
    providers = yaml.safe_load((GRAFANA / "provisioning/dashboards/taskapp.yml").read_text())["providers"]
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]

    assert mounts["./deploy/grafana/provisioning"] == "/etc/grafana/provisioning"
    assert [provider["options"]["path"] for provider in providers] == [mounts["./deploy/grafana/dashboards"]]
    assert [(source["type"], source["url"]) for source in sources] == [("prometheus", "http://prometheus:9090")]
    home = COMPOSE["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert home == f"{mounts['./deploy/grafana/dashboards']}/overview.json"


def test_who_talks_to_whom_has_the_names_of_the_compose_file() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
    alertmanagers = config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    scraped = [job["static_configs"][0]["targets"] for job in config["scrape_configs"]]

    for target in (*alertmanagers, *(each for targets in scraped for each in targets)):
        service, port = target.split(":")
        assert f"127.0.0.1:{port}:{port}" in COMPOSE["services"][service]["ports"]


def test_every_file_that_compose_mounts_exists_and_nothing_listens_to_the_world() -> None:
    for name, service in COMPOSE["services"].items():
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith(".") else source in COMPOSE["volumes"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_alertmanager_gets_every_address_that_render_takes() -> None:
    taken = set(re.findall(r"ALERT_[A-Z_]+", (ROOT / "deploy/alertmanager/render").read_text()))

    assert set(COMPOSE["services"]["alertmanager"]["environment"]) == taken
