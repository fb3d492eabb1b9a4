"""``taskapp schedules`` as people type it, on a real Redis, with a real beat and a real worker."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from celery import Celery

from taskapp.cli.main import main
from taskapp.redis.keys import Keys
from taskapp.schedules import Interval, Schedule
from tests.integration import shop
from tests.support import Node, Process, RedisServer, clean_environment, eventually

GREET = "tests.integration.shop.greet"
ODD_NAMES = ["a b", "ü", "--x", "n" * 200, "*?[x]", 'it\'s "so"; {}', "nightly:runs", "wake"]


class Done(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Done]


@pytest.fixture
def taskapp(app: Celery, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command line in this process: ``taskapp("list", "--json")``."""

    def run(*arguments: str, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "argv", ["taskapp", "schedules", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"))
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def ok(taskapp: Run) -> Callable[..., str]:
    """Run what must succeed; return what it prints."""

    def run(*arguments: str, stdin: str = "") -> str:
        done = taskapp(*arguments, stdin=stdin)
        assert done.code == 0, done
        return done.out

    return run


@pytest.fixture
def beat(tmp_path: Path, redis_server: RedisServer) -> Iterator[Process]:
    environment = clean_environment(
        TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(tmp_path / "beat"), TASKAPP_CANARY_SECONDS="0",
        PYTHONPATH=str(Path.cwd()),
    )  # fmt: skip
    argv = [sys.executable, "-m", "celery", "-A", "taskapp", "beat", "-l", "INFO"]
    process = Node(argv, tmp_path / "beat.log", environment, tmp_path)
    eventually(lambda: "this beat leads now" in process.output() or process.returncode is not None)
    yield process
    process.close()


def shown(ok: Callable[..., str], name: str) -> dict:
    return json.loads(ok("show", "--json", "--", name))


# --- with a beat and a worker ------------------------------------------------------------------------


def test_a_schedule_is_added_changed_paused_resumed_fired_and_removed_while_beat_runs(
    ok: Callable[..., str], app: Celery, beat: Process, worker: Callable[..., Process]
) -> None:
    worker(TASKAPP_INCLUDE="tests.integration.shop")
    added = ok("add", "hello", GREET, "every 1s", "--args", '["you"]')
    assert added.startswith("added 'hello': every 1 s in UTC\nnext   ")
    eventually(lambda: [tick["state"] for tick in shown(ok, "hello")["ticks"]].count("SUCCESS") >= 2)
    assert "celerybeat@" in ok("list").splitlines()[0]

    ok("pause", "hello", "--why", "stocktaking")
    runs = shown(ok, "hello")["runs"]
    began = time.time()
    eventually(lambda: time.time() > began + 2.2)
    paused = shown(ok, "hello")
    assert (paused["runs"], paused["state"], paused["due_at"]) == (runs, "paused", None)
    assert paused["paused"] == "stocktaking"

    resumed_at = time.time()
    assert ok("resume", "hello").startswith("resumed 'hello': due ")
    eventually(lambda: shown(ok, "hello")["runs"] > runs)
    assert all(tick["due_at"] > resumed_at for tick in shown(ok, "hello")["ticks"][: shown(ok, "hello")["runs"] - runs])

    ok("edit", "hello", "--when", "every 10000d", "--args", '["all"]')
    identity = ok("run-now", "hello").split()[-1]
    assert app.AsyncResult(identity).get(timeout=10) == "hello all"
    assert shown(ok, "hello")["due_at"] > time.time() + 1

    ok("remove", "hello")
    assert "hello" not in ok("list")


def test_an_edit_moves_the_next_tick_within_a_second(ok: Callable[..., str], beat: Process) -> None:
    ok("add", "later", GREET, "every 1h from 2026-01-01T00:30", "--args", '["you"]')
    soon = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 2))
    ok("edit", "later", "--when", f"every 100d from {soon}")

    [tick] = eventually(lambda: shown(ok, "later")["ticks"])

    assert tick["sent_at"] - tick["due_at"] < 15


def test_who_leads_is_told_and_who_leads_no_more_is_not(ok: Callable[..., str], beat: Process) -> None:
    assert "celerybeat@" in ok("list")
    beat.kill()
    eventually(lambda: "no active beat" in ok("list"), within_seconds=10)


# --- looking -----------------------------------------------------------------------------------------


def test_without_schedules_every_way_to_look_says_so(taskapp: Run) -> None:
    assert taskapp("list") == (0, "0 schedules; no active beat, no ticks yet\n", "")
    assert taskapp("list", "--json") == (0, "", "")
    assert taskapp("export") == (0, "", "")
    assert taskapp("import", "-").out == "added 0 schedules, 0 of them paused; skipped 0\n"
    assert taskapp("calendar").out == "no calendars\n"
    for command in ("show", "next", "pause", "resume", "run-now", "remove", "edit"):
        done = taskapp(command, "x", *(["--queue", "low"] if command == "edit" else []))
        assert done == (1, "", "Error: no schedule named 'x'; see: taskapp schedules list\n"), command


def test_next_is_in_the_zone_of_the_schedule_and_marks_changes_of_the_clocks(ok: Callable[..., str]) -> None:
    ok("add", "backup", GREET, "30 2 * * *", "--zone", "Europe/Berlin", "--args", '["x"]', "--twice")

    spring = ok("next", "backup", "-n", "3", "--after", "2027-03-27")
    autumn = ok("next", "backup", "-n", "3", "--after", "2027-10-30T12:00", "--json").splitlines()

    assert spring.splitlines() == [
        "Sat 2027-03-27 02:30:00 +01:00",
        "Sun 2027-03-28 03:00:00 +02:00  clocks go forward 1 h",
        "Mon 2027-03-29 02:30:00 +02:00",
    ]
    assert [(json.loads(line)["local"], json.loads(line)["clocks"]) for line in autumn] == [
        ("2027-10-31T02:30:00+02:00", None),
        ("2027-10-31T02:30:00+01:00", "clocks go back 1 h"),
        ("2027-11-01T02:30:00+01:00", None),
    ]


def test_a_list_goes_over_pages_by_prefix_and_by_state(ok: Callable[..., str], app: Celery) -> None:
    with app.schedules() as store:
        for number in range(1_100):
            store.add(Schedule(f"many/{number:04}", GREET, Interval(3_600.0), args=("x",)))
    ok("add", "other", GREET, "@daily", "--args", '["x"]')
    ok("pause", "many/0007", "many/1007")

    lines = ok("list", "many/").splitlines()
    assert lines[0].startswith("1,101 schedules; no active beat")
    assert [line.split()[0] for line in lines[2:]] == [f"many/{number:04}" for number in range(1_100)]
    paused = [json.loads(line)["name"] for line in ok("list", "--state", "paused", "--json").splitlines()]
    assert paused == ["many/0007", "many/1007"]


def test_one_that_cannot_be_read_is_shown_and_left_out_of_an_export(
    taskapp: Run, ok: Callable[..., str], redis_server: RedisServer
) -> None:
    ok("add", "garbled", GREET, "@daily", "--args", '["x"]')
    ok("add", "sound", GREET, "@daily", "--args", '["x"]')
    ok("add", "taken", GREET, "@daily", "--args", '["x"]')
    redis_server.client.hset("taskapp:schedule:garbled", "about", "{")
    redis_server.client.delete("taskapp:schedule:taken")
    redis_server.client.set("taskapp:schedule:taken", "something else")

    assert "broken" in ok("list", "garbled")
    assert "WRONGTYPE" in ok("list", "taken", "--json")
    assert "cannot be read" in ok("show", "garbled")
    done = taskapp("export")
    assert [json.loads(line)["name"] for line in done.out.splitlines()] == ["sound"]
    assert done.code == 1
    assert "skipped 'garbled': cannot be read" in done.err
    ok("remove", "garbled", "taken")
    assert [json.loads(line)["name"] for line in ok("list", "--json").splitlines()] == ["sound"]


# --- adding and changing -----------------------------------------------------------------------------

EVERYTHING = (
    "--zone", "Europe/Berlin", "--args", '["x"]', "--kwargs", "{}", "--queue", "high", "--priority", "5",
    "--overlap", "skip", "--misfire", "catch_up", "--catch-up", "10", "--grace", "5m", "--jitter", "30s",
    "--start", "2026-12-01T09:00", "--end", "2099-01-01", "--exclude", "2026-12-24/2027-01-01",
    "--exclude", "2027-05-01", "--calendar", "holidays", "--max-runs", "3", "--pause-after-failures", "5",
    "--unfinished", "1h",
    "--options", '{"expires": 60}',
)  # fmt: skip
AS_SAID = {
    "zone": "Europe/Berlin", "args": ["x"], "queue": "high", "priority": 5, "overlap": "skip", "misfire": "catch_up",
    "catch_up_most": 10, "grace_seconds": 300.0, "jitter_seconds": 30.0, "start_at": 1796112000.0,
    "end_at": 4070905200.0, "excluded": ["2026-12-24/2027-01-01", "2027-05-01"], "calendar": "holidays", "max_runs": 3,
    "pause_after_failures": 5, "unfinished_seconds": 3600.0, "options": {"expires": 60},
}  # fmt: skip


def test_add_takes_every_field_and_edit_changes_only_what_is_given(ok: Callable[..., str]) -> None:
    ok("calendar", "holidays", "2026-12-06")
    ok("add", "nightly", GREET, "0 3 * * MON-FRI", *EVERYTHING)
    before = shown(ok, "nightly")
    assert {field: before[field] for field in AS_SAID} == AS_SAID
    assert before["when"] == {
        "kind": "cron", "expression": "0 3 * * MON-FRI", "zone": "Europe/Berlin", "twice": False
    }  # fmt: skip

    ok("edit", "nightly", "--priority", "9", "--zone", "America/New_York")
    assert shown(ok, "nightly") == {
        **before, "priority": 9, "zone": "America/New_York", "due_at": shown(ok, "nightly")["due_at"],
        "when": {**before["when"], "zone": "America/New_York"}, "next": shown(ok, "nightly")["next"],
    }  # fmt: skip
    assert ok("next", "nightly", "-n", "1").endswith(" 03:00:00 -05:00\n")

    ok("edit", "nightly", "--queue", "", "--priority", "", "--calendar", "", "--end", "")
    assert not {"queue", "priority", "calendar", "end_at"} & shown(ok, "nightly").keys()
    ok("edit", "nightly", "--exclude", "")
    assert "excluded" not in shown(ok, "nightly")


def test_one_added_paused_is_not_due_before_it_is_resumed(ok: Callable[..., str], redis_server: RedisServer) -> None:
    assert "'quiet' is paused (added paused)" in ok("add", "quiet", GREET, "every 1s", "--args", '["x"]', "--disabled")
    assert redis_server.client.zscore("taskapp:schedules:due", "quiet") is None
    ok("resume", "quiet")
    assert redis_server.client.zscore("taskapp:schedules:due", "quiet") is not None


@pytest.mark.parametrize("name", ODD_NAMES)
def test_whatever_can_be_printed_can_name_one(ok: Callable[..., str], name: str) -> None:
    ok("add", "--args", '["x"]', "--", name, GREET, "@daily")
    ok("run-now", "--", name)
    assert shown(ok, name)["name"] == name
    assert name in ok("list", "--", name)
    exported = ok("export")
    ok("remove", "--", name)
    assert json.loads(ok("list", "--json") or "null") is None
    ok("import", "-", stdin=exported)
    assert shown(ok, name)["runs"] == 0


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("add", "x", GREET, "evry 1s"), "did you mean 'every'?"),
        (("add", "x", GREET, "61 * * * *"), "61 is out of range"),
        (("add", "x", GREET, "@daily", "--zone", "Europe/Berln"), "did you mean 'Europe/Berlin'?"),
        (("add", "x", GREET, "@daily", "--args", "{}"), "'{}' is not a JSON list"),
        (("add", "x", GREET, "@daily", "--args", "["), "not JSON"),
        (("add", "x", GREET, "@daily", "--jitter", "5"), "it does not consist of numbers with units"),
        (("add", "x", GREET, "@daily", "--priority", "10"), "10 is not in the range 0<=x<=9"),
        (("add", "x", GREET, "@daily", "--start", "soon"), "it is not an ISO 8601 time"),
        (("add", "x", GREET, "@daily", "--exclude", "2026-13-01"), "it is not a date"),
        (("add", "x", GREET, "every 5m", "--twice"), "only a cron schedule can use it"),
        (("add", "a\nb", GREET, "@daily"), "not a valid name"),
        (("add", "\udcff", GREET, "@daily"), "not a valid name"),
        (("edit", "known"), "give at least one field to change"),
        (("next", "known", "--after", "soon"), "it is not an ISO 8601 time"),
        (("backfill", "known", "2026-01-02", "2026-01-01"), "is not after"),
        (("backfill", "known", "2026-01-01", "2026-01-03"), "would queue 2 ticks due 2026-01-01 00:00:00 +00:00 to"),
        (("calendar", "--remove"), "name one calendar and no days"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error_and_changes_nothing(
    taskapp: Run, ok: Callable[..., str], arguments: tuple[str, ...], sentence: str
) -> None:
    ok("add", "known", GREET, "@daily", "--args", '["x"]')
    before = ok("export")

    done = taskapp(*arguments)

    assert done.code == 2
    assert sentence in done.err
    assert ok("export") == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("add", "known", GREET, "@daily", "--args", "[1]"), "a schedule named 'known' already exists; edit it"),
        (("add", "x", GREET, "at 2020-01-01", "--args", "[1]"), "it will never be due"),
        (("edit", "known", "--end", "2020-01-01"), "it will never be due"),
        (("add", "x", "taskapp.ad", "@daily"), "no task named 'taskapp.ad'; did you mean 'taskapp.add'?"),
        (("add", "x", "taskapp.add", "@daily", "--args", "[1]"), "its task type does not accept them"),
        (("add", "x", GREET, "@daily", "--args", "[1]", "--queue", "nope"), "no queue named 'nope'"),
        (("add", "x", GREET, "@daily", "--args", "[1]", "--calendar", "nope"), "no calendar has that name"),
        (("add", "n" * 201, GREET, "@daily", "--args", "[1]"), "give 1 to 200 printable bytes"),
        (("add", "x", GREET, "@daily", "--args", "[1]", "--options", '{"eta": 1}'), "leave them out"),
        (("show", "knwon"), "no schedule named 'knwon'; did you mean 'known'?"),
        (("backfill", "known", "1900-01-01", "2026-01-01", "--yes"), "it has more than 10,000 ticks"),
        (("calendar", "nope", "--remove"), "no calendar has that name"),
    ],
)
def test_what_cannot_be_done_is_one_line_on_stderr(
    taskapp: Run, ok: Callable[..., str], arguments: tuple[str, ...], sentence: str
) -> None:
    ok("add", "known", GREET, "@daily", "--args", '["x"]')
    before = ok("export")

    done = taskapp(*arguments)

    assert done.code == 1
    assert done.err.count("\n") == 1
    assert done.err.startswith("Error: ")
    assert sentence in done.err
    assert ok("export") == before


def test_a_task_type_nobody_here_knows_is_warned_about_and_kept(taskapp: Run) -> None:
    done = taskapp("add", "x", "shop.report", "@daily")

    assert done.code == 0
    assert "task type 'shop.report' is unknown here; make sure that a node has it" in done.err
    assert "no active beat; start one with: celery -A taskapp beat" in done.err


def test_what_the_configuration_has_is_paused_and_resumed_but_not_changed(taskapp: Run, app: Celery) -> None:
    with app.schedules() as store:
        store.put_configured(Schedule("conf", GREET, Interval(60.0), args=("x",), source="config"))

    for arguments in (("edit", "conf", "--priority", "1"), ("remove", "conf"), ("add", "conf", GREET, "@daily",
                      "--args", "[1]", "--replace")):  # fmt: skip
        done = taskapp(*arguments)
        assert done.code == 1
        assert done.err == (
            "Error: schedule 'conf' cannot be changed or removed here: it comes from beat_schedule in the "
            "configuration; change it there, or pause it\n"
        )
    assert taskapp("pause", "conf").code == taskapp("resume", "conf").code == 0
    assert taskapp("export").out == ""
    exported = taskapp("export", "--all").out
    assert json.loads(exported)["source"] == "config"
    assert taskapp("import", "-", "--replace", stdin=exported).out.endswith("skipped 1\n")


# --- runs besides the ticks ---------------------------------------------------------------------------


def test_a_backfill_is_listed_first_and_queues_what_was_listed(
    ok: Callable[..., str], app: Celery, worker: Callable[..., Process], redis_server: RedisServer
) -> None:
    ok("add", "hourly", GREET, "@hourly", "--zone", "Europe/Berlin", "--args", '["you"]', "--disabled")

    listed = ok("backfill", "hourly", "2026-10-25T00:00", "2026-10-26T00:00", "--dry-run").splitlines()
    assert redis_server.client.llen(Keys().ready("default")) == 0
    queued = ok("backfill", "hourly", "2026-10-25T00:00", "2026-10-26T00:00", "--yes", "--json").splitlines()

    assert listed[-1] == "would queue 25 ticks of 'hourly'"
    assert listed[3].startswith("Sun 2026-10-25 02:00:00 +01:00  ")
    ids = [json.loads(line)["id"] for line in queued]
    assert ids == [line.split()[-1] for line in listed[:-1]]
    worker(TASKAPP_INCLUDE="tests.integration.shop")
    assert [app.AsyncResult(identity).get(timeout=10) for identity in ids] == ["hello you"] * 25


def test_a_backfill_that_is_cut_off_says_how_far_it_came(
    taskapp: Run, ok: Callable[..., str], redis_server: RedisServer
) -> None:
    ok("add", "huge", GREET, "@hourly", "--args", json.dumps(["x" * 20_000]), "--disabled")
    client = redis_server.client
    client.config_set("maxmemory", client.info("memory")["used_memory"] + 8_000_000)
    try:
        done = taskapp("backfill", "huge", "2026-01-01", "2026-02-01", "--yes")
    finally:
        client.config_set("maxmemory", 0)

    assert done.code == 1
    told = re.search(r"queued (\d+) of 744 ticks, then: .*; continue with FROM (.{19}) \+00:00\n", done.err)
    count = int(told[1])
    assert 100 <= count < 744
    assert client.llen(Keys().ready("default")) == count
    assert told[2] == f"{datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=count):%F %T}"


# --- files and calendars -----------------------------------------------------------------------------


def test_what_is_exported_is_imported_the_same_and_what_is_paused_stays_so(
    ok: Callable[..., str], tmp_path: Path
) -> None:
    ok("calendar", "holidays", "2026-12-24")
    ok("add", "nightly", GREET, "0 3 * * MON-FRI", *EVERYTHING)
    ok("add", "still", GREET, "every 1h30m from 2026-01-01T00:10", "--args", '["x"]', "--disabled")
    file = tmp_path / "schedules.jsonl"
    file.write_text(ok("export"))
    ok("remove", "nightly", "still")

    assert ok("import", str(file)) == "added 2 schedules, 1 of them paused; skipped 0\n"

    assert ok("export") == file.read_text()
    assert shown(ok, "still")["state"] == "paused"


def test_an_import_with_one_line_that_cannot_be_used_adds_nothing(taskapp: Run, ok: Callable[..., str]) -> None:
    ok("add", "taken", GREET, "@daily", "--args", '["x"]')
    good = {"name": "good", "task": GREET, "when": {"kind": "interval", "seconds": 60}, "args": ["x"]}
    lines = [
        good, {**good, "name": 5}, "", "not", [1], good, {**good, "name": "a", "args": "text"},
        {**good, "name": "b", "when": {"kind": "interval", "seconds": "x"}}, {**good, "name": "c", "calendar": "nope"},
        {**good, "name": "d", "zone": "X/Y"}, {**good, "name": "e", "priorty": 1}, {**good, "name": "taken"},
        {**good, "name": "f", "queue": "nope"}, {**good, "name": "g", "paused": 1}, {**good, "name": "h", "args": []},
        {**good, "name": "i", "unfinished_seconds": float("nan")}, {**good, "name": "j", "excluded": ["x"]},
        {**good, "name": "k", "when": {"kind": "elsewhere", "said": "x"}},
    ]  # fmt: skip
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)

    done = taskapp("import", "-", stdin=text)

    assert done.code == 1
    told = done.err.splitlines()
    assert [int(line.split()[1].rstrip(":")) for line in told[:-1]] == [2, *range(4, 19)]
    assert told[-1] == "Error: nothing imported; 16 lines cannot be used"
    assert "did you mean 'priority'?" in done.err
    assert [json.loads(line)["name"] for line in ok("export").splitlines()] == ["taken"]


def test_an_import_leaves_out_what_is_never_due_again_and_says_so(taskapp: Run, ok: Callable[..., str]) -> None:
    when = {"kind": "once", "at": 1_000_000_000}
    done = taskapp("import", "-", stdin=json.dumps({"name": "past", "task": GREET, "when": when, "args": ["x"]}))

    assert done == (
        0, "added 0 schedules, 0 of them paused; skipped 1\n", "skipped 'past': it is never due again\n"
    )  # fmt: skip


def test_a_calendar_keeps_those_who_follow_it_from_being_due_and_stays_as_long_as_they_do(
    taskapp: Run, ok: Callable[..., str]
) -> None:
    ok("calendar", "holidays", "2026-12-24", "2026-12-26/2026-12-27")
    ok("add", "daily", GREET, "@daily", "--args", '["x"]', "--calendar", "holidays", "--start", "2026-12-23")
    assert [line.split()[1] for line in ok("next", "daily", "-n", "3").splitlines()] == [
        "2026-12-23", "2026-12-25", "2026-12-28"
    ]  # fmt: skip

    assert ok("calendar", "holidays", "2026-12-23").endswith("1 schedule uses it\n")
    assert ok("next", "daily", "-n", "1").split()[1] == "2026-12-24"
    assert taskapp("calendar", "holidays", "--remove").err == (
        "Error: calendar of a schedule cannot be 'holidays': schedules follow it: 'daily'; "
        "give them another with: taskapp schedules edit\n"
    )
    ok("edit", "daily", "--calendar", "")
    assert ok("calendar", "holidays", "--remove") == "removed calendar 'holidays'\n"
    assert ok("calendar") == "no calendars\n"


# --- trouble -----------------------------------------------------------------------------------------


def test_a_redis_that_is_full_or_away_is_one_line_on_stderr(
    taskapp: Run, ok: Callable[..., str], redis_server: RedisServer
) -> None:
    ok("add", "known", GREET, "@daily", "--args", '["x"]')
    client = redis_server.client
    client.config_set("maxmemory", 1)
    try:
        full = taskapp("add", "x", GREET, "@daily", "--args", '["x"]')
        assert taskapp("pause", "known").code == 0
        assert taskapp("remove", "known").code == 0
    finally:
        client.config_set("maxmemory", 0)
    redis_server.kill()
    away = taskapp("list")

    assert (full.code, away.code) == (1, 1)
    assert full.err.startswith("Error: Redis refused: ")
    assert away.err.startswith("Error: the broker cannot be reached: ")
    assert full.err.count("\n") == away.err.count("\n") == 1


def test_a_reader_that_goes_away_ends_a_list_without_a_word(app: Celery, redis_server: RedisServer) -> None:
    with app.schedules() as store:
        for number in range(1_000):
            store.add(Schedule(f"many/{number:04}", GREET, Interval(3_600.0), args=("x",)))
    environment = clean_environment(TASKAPP_BROKER_URL=redis_server.url, PYTHONPATH=str(Path.cwd()))
    argv = [sys.executable, "-m", "taskapp", "schedules", "list"]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("1,000 schedules; no active beat")
        process.stdout.close()
        assert process.wait(20) != 0
        assert process.stderr.read() == ""


def test_python_adds_changes_and_looks_in_the_same_way(app: Celery) -> None:
    from taskapp.errors.schedules import BadSchedule
    from taskapp.schedules import parse_when

    with app.schedules() as schedules:
        schedules.add(Schedule("nightly", shop.greet.name, parse_when("0 3 * * *", "Europe/Berlin"), args=("x",)))
        schedules.edit("nightly", overlap="skip")
        with pytest.raises(BadSchedule, match="did you mean 'overlap'"):
            schedules.edit("nightly", overlaps="skip")

        [known] = schedules.all()
        assert (known.schedule.overlap, known.state, known.last) == ("skip", "active", None)
        assert schedules.existing(["nightly", "other"]) == {"nightly"}
