"""``taskapp history`` as people and scripts use it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from taskapp.engine.completions import Finished
from taskapp.monitor.history import History
from tests.integration.history.conftest import Deployment
from tests.support import Process, clean_environment, eventually


@pytest.fixture
def filled(deployment: Deployment) -> Deployment:
    """A history of a hundred tasks, the last one of a minute ago; no node and no writer."""
    now = time.time()
    deployment.history.create()
    deployment.history.add([
        Finished(
            int((now - 60 * number) * 1_000_000), f"id-{number}", "shop.pay" if number % 4 else "shop.ship", "default",
            "failed" if number % 10 == 3 else "succeeded", args=f"('order-{number}',)", run_seconds=0.5,
            error="ValueError: no\x1b[31m" if number % 10 == 3 else "", result="" if number % 10 == 3 else "None",
            traceback="Traceback\n  somewhere\n" if number % 10 == 3 else "",
        )
        for number in range(1, 101)
    ])  # fmt: skip
    return deployment


def ids(output: str) -> list[str]:
    return [json.loads(line)["id"] for line in output.splitlines()]


def test_search_lists_the_newest_first_and_says_where_the_next_page_is(filled: Deployment) -> None:
    first = filled.run("search", "--json", "--type", "shop.pay", "--state", "FAILURE", "--limit", "3")
    after = re.fullmatch(r"there may be more; continue with --after (\S+)\n", first.stderr).group(1)
    second = filled.run(
        "search", "--json", "--type", "shop.pay", "--state", "failed", "--limit", "30", "--after", after
    )

    assert ids(first.stdout) == ["id-3", "id-13", "id-23"]
    assert ids(second.stdout) == ["id-33", "id-43", "id-53", "id-63", "id-73", "id-83", "id-93"]
    assert second.stderr == ""


def test_search_by_time_and_text(filled: Deployment) -> None:
    assert ids(filled.run("search", "--json", "--since", "5m").stdout) == ["id-1", "id-2", "id-3", "id-4"]
    assert ids(filled.run("search", "--json", "--text", "ORDER-77'").stdout) == ["id-77"]
    assert ids(filled.run("search", "--json", "--until", "99m30s").stdout) == ["id-100"]
    assert filled.run("search", "--text", "nowhere").stdout == "no matching finished tasks\n"


def test_people_get_a_table_and_all_of_one_task(filled: Deployment) -> None:
    listed = filled.run("search", "--limit", "3")
    shown = filled.run("show", "id-3")

    assert re.search(r"finished at +state +task +id", listed.stdout)
    assert re.search(r"failed +shop.pay +id-3 +default +0.5 s +\('order-3',\) +ValueError: no", listed.stdout)
    assert "traceback    Traceback\n      somewhere\n" in shown.stdout
    assert "\x1b" not in listed.stdout + shown.stdout
    assert json.loads(filled.run("show", "id-3", "--json").stdout)["state"] == "failed"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["search", "--state", "faild"], "no final state named 'faild'; did you mean 'failed'?"),
        (["search", "--since", "yesterday"], "'yesterday' is not a time; write it as 2h or 30m (ago)"),
        (["search", "--after", "there"], "'there' is not a valid cursor of the history"),
        (["prune", "--older-than", "soon"], "'soon' is not a duration; write it as 90d, 12h or 30m"),
        (["show", "none"], "no finished task 'none'; it may not have ended yet, or may have been deleted"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(filled: Deployment, arguments: list[str], sentence: str) -> None:
    done = filled.run(*arguments)

    assert done.returncode in (1, 2)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_prune_deletes_what_is_old(filled: Deployment) -> None:
    asked = filled.run("prune", "--older-than", "50m30s")
    done = filled.run("prune", "--older-than", "50m30s", "--yes")

    assert asked.returncode == 1
    assert done.stdout == "deleted 50 finished tasks\n"
    assert filled.history.count() == 50


def test_status_counts_what_is_kept_waits_and_was_lost(filled: Deployment) -> None:
    filled.server.client.xadd("taskapp:finished", {"r": "x"})
    good = filled.run("status", "--json")
    filled.server.client.hset("taskapp:counts", "finished_dropped", 3)
    bad = filled.run("status")

    assert (good.returncode, json.loads(good.stdout)["kept"], json.loads(good.stdout)["waiting"]) == (0, 100, 1)
    assert bad.returncode == 1
    assert "dropped  3" in bad.stdout


def test_without_a_history_it_says_how_to_get_one(deployment: Deployment) -> None:
    environment = clean_environment(TASKAPP_BROKER_URL=deployment.server.url, PYTHONPATH=str(Path.cwd()))
    argv = [*deployment.writer().argv[:-1], "search"]
    looking = Process(argv, deployment.directory / "log", environment, cwd=deployment.directory)

    assert looking.wait() == 1
    assert looking.output() == (
        "Error: no history is kept; set TASKAPP_HISTORY=true for every node, then run: taskapp history run\n"
    )


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("oracle://u:hunter2@h/d", "'oracle' is not a supported database"),
        ("sqlite://", "an in-memory database is lost"),
        ("postgresql+nothing://u:hunter2@h/d", "history cannot be kept at"),
        ("postgresql://u:hunter2@127.0.0.1:1/d", "cannot be used"),
        ("sqlite:////proc/none/history.sqlite", "there is no history at"),
    ],
)
def test_a_url_that_leads_nowhere_is_refused_without_its_password(
    deployment: Deployment, url: str, sentence: str
) -> None:
    deployment.url = url

    done = deployment.run("search")

    assert done.returncode == 1
    assert sentence in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_sqlite_below_the_data_dir_is_the_default(deployment: Deployment) -> None:
    deployment.url = ""
    writer = deployment.writer(TASKAPP_HISTORY="true")

    eventually(lambda: (deployment.directory / "history.sqlite").exists())
    assert History(f"sqlite:///{deployment.directory}/history.sqlite").url in writer.output()
