"""What others write, in names, ids, arguments, errors and logs, has no effect on a terminal and forges no line."""

from __future__ import annotations

import ast
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import time
from typing import Any

import click
import pytest

import taskapp
from taskapp.cli.main import taskapp as command
from taskapp.engine.completions import Finished
from taskapp.engine.limit_numbers import LimitsAdmin
from taskapp.engine.limits import Limits, Rate, Unique
from taskapp.engine.options import NodeProfile, Options
from taskapp.engine.settlement import Settlement
from taskapp.engine.task_notes import Notes
from taskapp.monitor.history import History
from taskapp.sanitize import sanitize, sanitize_lines
from tests.engine.bench import Bench, TestNode
from tests.support import Process, RedisServer, clean_environment, eventually

HOSTILE = "a\x1b[2J\x1b]0;t\x07\x9b31m\x1b[31mred\u202eo\u2066\x7f\t\r\nforged [line]\x85\u2028\x0b\x00z"
NOT_LOOKED_AT = {
    "demo": "runs for minutes, on data of its own", "up": "runs until it is stopped; its lines are those of nodes",
    "exporter": "serves until it is stopped", "health": "prints words of ours", "redis start": "starts a server",
    "redis status": "of a server of ours", "redis stop": "the same", "history run": "serves until it is stopped",
}  # fmt: skip
COMMANDS: dict[str, list[list[str]]] = {
    "top": [["--once", "--every", "0.2"]],
    "task show": [
        ["known"], ["known", "--traceback"], ["known", "--json"], [HOSTILE], [HOSTILE, "--json"], [f"no{HOSTILE}"],
        [f"rated{HOSTILE}"], [f"rated{HOSTILE}", "--json"], [f"latest{HOSTILE}"],
    ],
    "task logs": [["known"], ["known", "--json"], ["known", "-f"], [f"no{HOSTILE}"]],
    "dead list": [[], ["--json"], ["--task", HOSTILE], ["--queue", HOSTILE]],
    "dead show": [["default/1"], ["default/2"], [HOSTILE]],
    "dead replay": [["default/1", "--args", "[1]"], ["default/9"], [HOSTILE], ["default/1", "--to", HOSTILE]],
    **{f"outbox {each}": [["--url", HOSTILE]] for each in ("create", "list", "run", "status")},
    **{f"outbox {each}": [[HOSTILE, "--url", HOSTILE]] for each in ("remove", "retry")},
    "dead purge": [["default/9", "--yes"], [HOSTILE]],
    "delayed list": [[], ["--json"], ["--queue", HOSTILE]],
    "delayed reschedule": [[HOSTILE, "3600"], [f"no{HOSTILE}", "1"], [HOSTILE, HOSTILE]],
    "delayed cancel": [[HOSTILE], [f"no{HOSTILE}"]],
    "circuits list": [[], ["--json"]],
    "circuits close": [[HOSTILE]],
    "limits list": [[], ["--json"]],
    "limits set": [
        ["default", "100"], [HOSTILE, "5"], ["default", HOSTILE], [HOSTILE, "--rate", "5/s"],
        [f"no{HOSTILE}", "--rate", "5/s"], [HOSTILE, "--rate", HOSTILE], [HOSTILE, "--at-once", HOSTILE],
        ["--weight", f"{HOSTILE}=2"], ["--weight", HOSTILE],
    ],
    "limits pause": [[HOSTILE, "5", "--key", HOSTILE], [f"no{HOSTILE}", "5"], [HOSTILE, HOSTILE]],
    "limits clear": [
        ["default"], [HOSTILE], [f"no{HOSTILE}"], ["--weight", HOSTILE], ["--weight", f"no{HOSTILE}"],
    ],
    "schedules list": [[], ["--json"]],
    "schedules show": [["job"], ["job", "--json"], [HOSTILE], ["broken"]],
    "schedules next": [["job"], ["job", "--json"], ["job", "--after", HOSTILE], ["broken"]],
    "schedules add": [["new", HOSTILE, "every 1h"], [HOSTILE, "shop.mail", "every 1h"], ["new2", "shop.mail", HOSTILE]],
    "schedules edit": [["job", "--task", HOSTILE], ["job", "--when", HOSTILE], ["broken", "--when", "every 1h"]],
    "schedules pause": [["job", "--why", HOSTILE], [f"no{HOSTILE}"]],
    "schedules resume": [["job"], ["broken"]],
    "schedules run-now": [["job"], ["broken"]],
    "schedules backfill": [["job", "2026-01-01T00:00", "2026-01-01T03:00", "--dry-run"], ["job", HOSTILE, HOSTILE]],
    "schedules export": [[], ["--all"]],
    "schedules import": [["FILE"], ["FILE", "--replace"]],
    "schedules calendar": [[], ["--json"], [HOSTILE], ["days", HOSTILE]],
    "schedules remove": [["job"], [f"no{HOSTILE}"]],
    "history search": [[], ["--json"], ["--text", HOSTILE], ["--type", HOSTILE], ["--since", HOSTILE]],
    "history show": [[HOSTILE], [HOSTILE, "--json"], ["known"], [f"no{HOSTILE}"]],
    "history status": [[], ["--json"]],
    "history prune": [["--older-than", "999d", "--yes"], ["--older-than", HOSTILE]],
    "doctor": [[], ["--json"], ["--adopt", "--dry-run", "--force"]],
}  # fmt: skip


def leaves(group: click.Group, before: str = "") -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            yield from leaves(found, f"{before}{name} ")
        else:
            yield f"{before}{name}"


def test_every_command_is_looked_at() -> None:
    assert set(leaves(command)) == {*COMMANDS, *NOT_LOOKED_AT}


def assert_harmless(text: str) -> None:
    """Fail if anything in ``text`` but line breaks and colours of ours has an effect, or begins a line of its own."""
    assert "\x1b[31mred" not in text
    bare = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert sorted({each for each in bare if not each.isprintable()} - {"\n", "\t"}) == []
    assert [line for line in bare.splitlines() if line.startswith("forged")] == []


def limit_all(bench: Bench) -> None:
    """Block tasks by a rate and a unique key of hostile names."""
    admin, rate = LimitsAdmin(bench.link, ""), Rate(HOSTILE, HOSTILE, 1, 3_600_000, 1)
    unique = Unique(f"{HOSTILE}\x1f{HOSTILE}", on_duplicate="latest")
    numbers = json.dumps({"limit": 1, "period_ms": 3_600_000, "burst": 1, "most": 1})
    bench.link.run("limit", "", 0, "declared", HOSTILE, numbers)
    admin.set_limit(HOSTILE, {"most": 2})
    admin.set_weight(HOSTILE, 2)
    bench.client.zadd(bench.keys("circuits"), {HOSTILE: 1_000})
    bench.client.hset(bench.keys("circuit", HOSTILE), mapping={"kind": HOSTILE, "times": 1, "until": 1})
    node = bench.nodes[0]
    for name in ("first", "rated", "first2", "latest"):
        of = Limits(HOSTILE, (rate,)) if name in ("first", "rated") else Limits(HOSTILE, unique=unique)
        bench.submit(f"{name}{HOSTILE}", limits=of, queue="limited", task=HOSTILE)
        node.take(1, ["limited"])


@pytest.fixture
def hostile_site(redis_server: RedisServer, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Fill a Redis and a history with hostile texts; return the environment of who looks at them."""
    bench = Bench(redis_server, Options())
    for number in range(2):
        bench.push(HOSTILE + str(number), queue="default", task=HOSTILE)
    about = {"name": HOSTILE, "state": HOSTILE, "queues": [HOSTILE], "slots": {HOSTILE: 2}, "used": {HOSTILE: 1}}
    node = TestNode(bench.connect, bench.options, NodeProfile(name=HOSTILE, about=lambda: about))
    bench.nodes.append(node)
    for claimed in node.take(2, ["default"]):
        node.bury(claimed.tag, "failed", HOSTILE, Settlement())
    node.ends.flush()
    node.done()
    bench.push(HOSTILE, queue="default", task=HOSTILE, due_ms=int((time() + 3_600) * 1_000))
    bench.push("known", queue="default", task=HOSTILE)
    limit_all(bench)
    client = bench.client
    client.hset(
        "unacked",
        HOSTILE,
        json.dumps([{"body": HOSTILE, "headers": {"id": HOSTILE, "task": HOSTILE}}, HOSTILE, HOSTILE]),
    )
    failed = {
        "status": "FAILURE", "result": {"exc_type": "ValueError", "exc_message": [HOSTILE], "exc_module": "builtins"},
        "traceback": f"Traceback\n{HOSTILE}", "task_id": "known", "name": HOSTILE, "worker": HOSTILE, "queue": HOSTILE,
        "args": [HOSTILE], "kwargs": {HOSTILE: HOSTILE}, "children": [], "date_done": "2026-01-01T00:00:00+00:00",
    }  # fmt: skip
    for name in ("known", HOSTILE):
        client.set(f"celery-task-meta-{name}", json.dumps(failed))
    said = json.dumps({"at": time(), "level": HOSTILE, "text": HOSTILE, "attempt": 1}).encode()
    progress = json.dumps({"done": 1, "total": 2, "note": HOSTILE, "at": time(), "attempt": 1}).encode()
    retry = json.dumps({"at": time(), "attempt": 1, "error": HOSTILE, "node": HOSTILE}).encode()
    Notes(bench.link, "", 600).write(
        "s", 1, [("L", "known", said), ("P", "known", progress), ("R", "known", retry)], 10
    )
    schedule = {"name": "job", "task": HOSTILE, "when": "every 1 h", "args": [HOSTILE], "kwargs": {"k": HOSTILE}}
    for name, about_json, paused in (
        ("job", json.dumps(schedule), HOSTILE),
        ("broken", HOSTILE, ""),
        (HOSTILE, "{}", ""),
    ):
        bench.link.run("schedules/schedule", "", 0, name, "add", "", about_json, "", 0, "", 0, paused)
    bench.link.run("schedules/pause", "", 0, "broken", "broken", HOSTILE, "")
    tick = {"due": 1_000, "id": HOSTILE, "sent": 2_000, "state": HOSTILE, "ended": 3_000, "took": 1}
    client.lpush("taskapp:schedule:job:runs", json.dumps(tick))
    client.hset("taskapp:schedules:calendars", HOSTILE, json.dumps(["2026-01-01"]))
    url = f"sqlite:///{tmp_path}/history.sqlite"
    text = HOSTILE.replace("\0", "")
    more: dict[str, Any] = dict.fromkeys(("args", "kwargs", "result", "error", "traceback", "node", "schedule"), text)
    ended = [Finished(int(time() * 1e6), identity, text, text, "failed", **more) for identity in ("known", text)]
    history = History(url)
    history.create()
    history.add(ended)
    (tmp_path / "file").write_text(f"{json.dumps(schedule)}\n{HOSTILE}\n{json.dumps({**schedule, 'when': HOSTILE})}\n")
    yield clean_environment(
        TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(tmp_path), TASKAPP_HISTORY="true", COLUMNS="200",
        TASKAPP_HISTORY_URL=url,
    )  # fmt: skip
    bench.close()


def test_no_command_hands_hostile_texts_to_the_terminal(hostile_site: dict[str, str], tmp_path: Path) -> None:
    typed = [
        [*name.split(), *(str(tmp_path / "file") if each == "FILE" else each for each in arguments)]
        for name, calls in COMMANDS.items()
        for arguments in calls
    ]
    argv = [sys.executable, "-m", "tests.integration.typed"]
    lines = "".join(json.dumps(each) + "\n" for each in typed)
    done = subprocess.run(argv, env=hostile_site, input=lines, capture_output=True, text=True, timeout=120, check=False)

    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(typed), done.stderr
    assert "Traceback (most" not in done.stderr
    for each, answer in zip(typed, answers, strict=True):
        assert answer or each[:2] == ["schedules", "export"], each
        try:
            assert_harmless(answer)
        except AssertionError as problem:
            raise AssertionError(f"{each}: {answer}") from problem
    whole = "".join(answers)
    assert whole.count("\\x1b[2J") > 40  # they were shown
    assert whole.count("blocked\x1b[0m, next at") == 1
    assert whole.count("remark     one of") == 1


def test_commands_print_in_one_place() -> None:
    """All goes through ``output``, which sanitizes, but for what rich draws of texts that are sanitized before."""
    folder = Path(taskapp.__file__).parent
    found = []
    for path in [*(folder / "cli").rglob("*.py"), folder / "celery.py"]:
        for call in (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)):
            text = ast.unparse(call.func)
            if text in ("print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write"):
                found.append(f"{path.relative_to(folder)}: {ast.unparse(call)}")
    assert [
        each
        for each in found
        if not each.startswith(("cli/output.py", "cli/steps.py"))
        and "sanitize(" not in each
        and "bold=True" not in each
    ] == []


@pytest.mark.parametrize(
    "character", [chr(code) for code in (*range(32), *range(127, 160), 0x202E, 0x2066, 0x200F, 0x2028, 0xD800)]
)
def test_what_does_not_print_is_escaped(character: str) -> None:
    assert sanitize(f"a{character}b").isprintable()
    assert sanitize_lines(f"a{character}b").replace("\n    ", "").replace("\t", "").isprintable()


def test_no_text_of_a_task_passes_for_a_line_of_the_log(
    worker: Callable[..., Process], app: Any, caplog: pytest.LogCaptureFixture
) -> None:
    node = worker("-c", "2", TASKAPP_INCLUDE="tests.integration.shouting")
    caplog.set_level(logging.ERROR)
    from tests.integration import shouting

    for name, args in (("shout", (HOSTILE,)), ("fail_loudly", (HOSTILE,)), ("retry_loudly", (HOSTILE,))):
        getattr(shouting, name).apply_async(args, task_id=f"{name}{HOSTILE}")
    app.send_task(f"unknown{HOSTILE}", args=(HOSTILE,))
    app.control.revoke(HOSTILE)
    eventually(lambda: node.output().count("the end") >= 3)
    node.terminate()

    text = node.log.read_bytes().decode()
    assert_harmless(text.partition("[tasks]")[2])
    assert text.count("\\x1b[2J") > 5
