"""Our tabs in Flower, over HTTP: who may see and do what, and what a broker that is away does to them."""

from __future__ import annotations

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tornado.web import create_signed_value

from taskapp.engine.dead_letters import DeadLetters
from taskapp.redis.keys import Keys
from taskapp.schedules.schedule import Schedule
from taskapp.schedules.store import Schedules
from taskapp.schedules.times import parse_when
from tests.support import Node, Process, RedisServer, clean_environment, eventually, start_flower

TABS = ("overview", "queues", "schedules", "dead-letters", "nodes")
LOGIN = "ada:secret"
WITH_LOGIN = f"--basic_auth={LOGIN}"
GITHUB = "flower.views.auth.GithubLoginHandler"
JSON = {"Content-Type": "application/json"}


class Answer(NamedTuple):
    status: int
    body: str
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


OPENER = urllib.request.build_opener(_NoRedirect)


def ask(url: str, login: str | None = LOGIN, body: Any = None, **headers: str) -> Answer:
    """GET, or POST of ``body`` as JSON; headers with underscores for dashes."""
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, headers=JSON if data is not None else {})
    if login:
        request.add_header("Authorization", "Basic " + b64encode(login.encode()).decode())
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    try:
        answer = OPENER.open(request, timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    return Answer(answer.status, answer.read().decode(), dict(answer.headers))


def run_in(server: RedisServer, directory: Path, code: str) -> None:
    """Run ``code`` in a process that submits."""
    environment = clean_environment(
        TASKAPP_BROKER_URL=server.url, TASKAPP_DATA_DIR=str(directory), PYTHONPATH=str(Path.cwd())
    )
    process = Node([sys.executable, "-c", code], directory / "submit.log", environment)
    assert process.wait(40) == 0, process.output()


def cards(answer: Answer) -> dict[str, Any]:
    return {card["label"]: card["value"] for card in block(answer, "cards")["cards"]}


def block(answer: Answer, kind: str) -> dict[str, Any]:
    assert answer.status == 200, answer.body
    return next(each for each in answer.json["blocks"] if each["kind"] == kind)


@pytest.fixture(scope="module")
def with_login(tmp_path_factory: pytest.TempPathFactory, session_server: RedisServer) -> Iterator[str]:
    """The address of a Flower that asks for ``LOGIN``."""
    process, address = start_flower(
        tmp_path_factory.mktemp("flower"), WITH_LOGIN, TASKAPP_BROKER_URL=session_server.url
    )
    yield address
    process.close()


def add_schedule(store: Schedules, name: str, when: str = "every 1h") -> None:
    store.add(Schedule(name, "taskapp.add", parse_when(when), args=(1, 2)))


def bury(letters: DeadLetters, count: int, queue: str = "default", reason: str = "failed", error: str = "boom") -> None:
    """Bury messages as the engine does, without a node."""
    link, script = letters._link, _BURY
    for start in range(0, count, 1_000):
        link.command("EVAL", script, 0, queue, reason, error, min(1_000, count - start))


_BURY = """
local queue, reason = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local tag = 'taskapp:{' .. queue .. '}:dead:'
redis.call('SADD', 'taskapp:queues', queue)
for i = 1, ARGV[4] do
  local number = redis.call('INCR', tag .. 'number')
  redis.call('ZADD', tag .. reason, now + number % 1024 / 1024, number)
  redis.call('HSET', tag .. 'raw', number, 'raw ' .. number)
  redis.call('HSET', tag .. 'about', number, cjson.encode({reason = reason, queue = queue, priority = 0, deliveries = 1,
    crashes = 0, id = 'id-' .. number, task = 'shop.pay', node = 'w1@host', error = ARGV[3], buried_at = now}))
end
"""


# --- who may ---------------------------------------------------------------------------------------


def test_every_page_its_json_and_its_actions_need_the_login(with_login: str) -> None:

    for tab in TABS:
        assert ask(f"{with_login}/{tab}", login=None).status == 401
        assert ask(f"{with_login}/{tab}", login="ada:wrong").status == 401
        assert ask(f"{with_login}/{tab}/data", login=None).status == 401
        assert ask(f"{with_login}/{tab}/actions/pause", login=None, body={"keys": ["x"]}).status == 401
        assert ask(f"{with_login}/{tab}").status == 200
        assert ask(f"{with_login}/{tab}/data").status == 200


def test_with_a_login_by_oauth_the_cookie_opens_pages_and_actions_need_its_token_too(
    flower: Callable[..., str], store: Schedules
) -> None:
    address = flower(
        "--auth=.*@example.com", f"--auth_provider={GITHUB}", "--cookie_secret=a-secret",
        "--oauth2_key=k", "--oauth2_secret=s", "--oauth2_redirect_uri=http://localhost/login",
    )  # fmt: skip
    add_schedule(store, "nightly")
    cookie = "user=" + create_signed_value("a-secret", "user", "ada@example.com").decode()
    stranger = "user=" + create_signed_value("a-secret", "user", "eve@elsewhere.org").decode()
    pause = f"{address}/schedules/actions/pause"

    page = ask(f"{address}/schedules", login=None)
    assert (page.status, page.headers["Location"].split("?")[0]) == (302, "/login")
    assert ask(f"{address}/schedules/data", login=None).json == {"error": "log in again"}
    assert ask(f"{address}/schedules/data", login=None, Cookie=stranger).status == 403
    assert ask(f"{address}/schedules/data", login=None, Cookie=cookie).status == 200
    assert ask(pause, login=None, body={"keys": ["nightly"]}, Cookie=cookie).status == 403
    assert store.get("nightly").state == "active"
    with_token = {"Cookie": f"{cookie}; _xsrf=token", "X_XSRFToken": "token"}
    assert ask(pause, login=None, body={"keys": ["nightly"]}, **with_token).json["count"] == 1
    assert store.get("nightly").paused == "paused in Flower by ada@example.com"


def test_what_another_site_sends_is_refused(with_login: str, store: Schedules) -> None:
    add_schedule(store, "nightly")
    pause, body = f"{with_login}/schedules/actions/pause", {"keys": ["nightly"]}

    refused = [
        ask(pause, body=body, Sec_Fetch_Site="cross-site", Origin="https://evil.example"),
        ask(pause, body=body, Sec_Fetch_Site="same-site"),
        ask(pause, body=body, Origin="https://evil.example"),
        ask(pause, body=json.dumps(body).encode(), Content_Type="text/plain"),
        ask(pause, body=b"keys=nightly", Content_Type="application/x-www-form-urlencoded"),
    ]

    assert [answer.status for answer in refused] == [403] * 5
    assert store.get("nightly").state == "active"
    assert ask(pause, body=body, Sec_Fetch_Site="same-origin", Origin=with_login).status == 200
    assert store.get("nightly").state == "paused"


@pytest.mark.parametrize("options", [(), (WITH_LOGIN, "--read_only"), (f"--auth_provider={GITHUB}",)])
def test_read_only_refuses_every_action(flower: Callable[..., str], store: Schedules, options: tuple[str, ...]) -> None:
    address = flower(*options)
    add_schedule(store, "nightly")

    answer = ask(f"{address}/schedules/actions/pause", body={"keys": ["nightly"]})

    assert answer.status == 403
    assert "read-only" in answer.json["error"]
    assert store.get("nightly").state == "active"
    assert 'data-read-only="yes"' in ask(f"{address}/schedules").body


def test_everything_lies_below_the_prefix_of_addresses(flower: Callable[..., str]) -> None:
    address = flower(WITH_LOGIN, "--url_prefix=watch")

    page = ask(f"{address}/watch/schedules")

    assert ask(f"{address}/schedules").status == 404
    for part in (
        "/watch/schedules/data",
        "/watch/schedules/actions/",
        "/watch/taskapp/static/tabs.js",
        "/watch/dead-letters",
    ):
        assert f'"{part}"' in page.body
    assert ask(f"{address}/watch/taskapp/static/tabs.js").status == 200
    assert ask(f"{address}/watch/schedules/data").status == 200


def test_nothing_of_a_page_is_inline_or_from_elsewhere(flower: Callable[..., str]) -> None:
    page = ask(f"{flower()}/schedules")

    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    for tag in page.body.split("<script")[1:]:
        assert ' src="/' in tag.split(">")[0]
    assert " onclick=" not in page.body


@pytest.mark.parametrize("path", ["../__init__.py", "..%2f__init__.py", "%2e%2e/__init__.py", "/etc/passwd"])
def test_only_what_lies_among_the_assets_is_served(flower: Callable[..., str], path: str) -> None:
    assert ask(f"{flower()}/taskapp/static/{path}").status in (403, 404)


# --- what is done ----------------------------------------------------------------------------------


def test_pause_resume_and_run_now_do_what_the_commands_do(
    with_login: str, store: Schedules, redis_server: RedisServer
) -> None:
    for name in ("nightly", "<b>hourly</b>"):
        add_schedule(store, name)
    act = f"{with_login}/schedules/actions/"

    paused = ask(act + "pause", body={"keys": ["nightly", "<b>hourly</b>", "no-such"]}).json
    assert (paused["count"], len(paused["problems"])) == (2, 1)
    assert paused["problems"][0].startswith("no schedule named 'no-such'")
    assert store.get("nightly").paused == "paused in Flower by ada"
    rows = block(ask(f"{with_login}/schedules/data?state=paused"), "table")["rows"]
    assert [(row["name"], row["may"]) for row in rows] == [
        ("<b>hourly</b>", ["resume", "run-now"]), ("nightly", ["resume", "run-now"]),
    ]  # fmt: skip
    assert ask(act + "resume", body={"keys": ["nightly"]}).json["text"] == "resumed 'nightly'"
    assert store.get("nightly").state == "active"
    assert ask(act + "run-now", body={"keys": ["nightly"]}).json["count"] == 1
    assert redis_server.client.llen(Keys().ready("default")) == 1
    shown = ask(f"{with_login}/schedules/data?show=nightly")
    assert block(shown, "facts")["subject"] == "nightly"
    assert ask(f"{with_login}/schedules/data?show=no-such").status == 404


def test_dead_letters_are_replayed_and_purged_by_name_and_all_that_fit(
    with_login: str, letters: DeadLetters, redis_server: RedisServer
) -> None:
    bury(letters, 1_200, error="timeout of the bank")
    bury(letters, 3, queue="low", reason="crashed")
    act = f"{with_login}/dead-letters/actions/"
    shown = ask(f"{with_login}/dead-letters/data?reason=crashed")

    assert [row["name"] for row in block(shown, "table")["rows"]] == ["low/3", "low/2", "low/1"]
    assert ask(act + "purge", body={"keys": ["low/2", "low/9", "nonsense"]}).json == {
        "count": 1, "text": "purged 1 dead letter", "problems": ["2 no longer existed"], "cursor": "",
    }  # fmt: skip
    assert ask(act + "replay", body={"keys": ["low/1"]}).json["count"] == 1
    assert redis_server.client.llen(Keys().ready("low")) == 1
    order, done = {"fits": {"text": "BANK"}, "at": shown.json["at"], "cursor": ""}, []
    while not done or order["cursor"]:
        done.append(ask(act + "replay", body=order).json)
        order["cursor"] = done[-1]["cursor"]
    assert [each["count"] for each in done] == [500, 500, 200]
    assert redis_server.client.llen(Keys().ready("default")) == 1_200
    assert letters.count() == {("low", "crashed"): 1}


def test_what_was_buried_after_somebody_looked_is_not_among_all_that_fit(with_login: str, letters: DeadLetters) -> None:
    bury(letters, 2)
    looked_at = ask(f"{with_login}/dead-letters/data").json["at"]
    eventually(lambda: time.time() > looked_at + 0.01)
    bury(letters, 3)

    done = ask(f"{with_login}/dead-letters/actions/purge", body={"fits": {}, "at": looked_at}).json

    assert done["count"] == 2
    assert letters.count() == {("default", "failed"): 3}


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"not json", b"[" * 100_000, {}, {"keys": []}, {"keys": "default/1"}, {"keys": [1]}, {"fits": {}},
        {"keys": ["a"], "fits": {}, "at": 1}, {"fits": [], "at": 1}, {"keys": ["x"] * 1_001},
        {"fits": {}, "at": 1, "cursor": "no cursor"}, {"fits": {}, "at": 1, "cursor": "[1,2]"},
    ],
)  # fmt: skip
def test_an_order_that_makes_no_sense_is_refused_in_a_sentence(
    letters: DeadLetters, with_login: str, body: Any
) -> None:
    bury(letters, 1)

    answer = ask(f"{with_login}/dead-letters/actions/purge", body=body)

    assert answer.status in (400, 409)
    assert answer.json["error"]
    assert letters.count() == {("default", "failed"): 1}


def test_a_hundred_thousand_schedules_and_letters_are_shown_a_page_at_a_time(
    with_login: str, store: Schedules, letters: DeadLetters
) -> None:
    bury(letters, 100_000)
    about = json.dumps(Schedule("NAME", "taskapp.add", parse_when("every 1h")).as_dict())
    for start in range(0, 100_000, 5_000):
        names = [f"job-{number:06d}" for number in range(start, start + 5_000)]
        store.link.pipeline(
            [
                ("HSET", f"taskapp:schedule:{name}", "about", about.replace("NAME", name), "due", "2000000000000")
                for name in names
            ]
        )
        store.link.command("ZADD", "taskapp:schedules", *(part for name in names for part in (0, name)))
    store.link.pipeline([("HSET", "taskapp:schedule:job-099999", "paused", "by hand"),
                         ("SADD", "taskapp:schedules:paused", "job-099999")])  # fmt: skip

    began_at = time.monotonic()
    answers = [
        ask(f"{with_login}/{path}")
        for path in (
            "schedules/data",
            "schedules/data?state=paused",
            "dead-letters/data",
            "dead-letters/data?text=none",
        )
    ]
    took_seconds = time.monotonic() - began_at

    tables = [block(answer, "table") for answer in answers]
    assert [len(table["rows"]) for table in tables] == [50, 1, 50, 0]
    assert tables[3]["cursor"]  # looked for as long as it may
    assert all(len(answer.body) < 60_000 for answer in answers)
    assert took_seconds < 20
    after = urllib.parse.quote(tables[0]["cursor"])
    assert block(ask(f"{with_login}/schedules/data?after={after}"), "table")["rows"][0]["name"] == "job-000050"


def test_queues_overview_and_nodes_show_what_is_there_and_what_has_happened(
    with_login: str, worker: Callable[..., Process], redis_server: RedisServer, tmp_path: Path
) -> None:
    node = worker(TASKAPP_INCLUDE="tests.integration.shop")
    run_in(
        redis_server, tmp_path,
        "from taskapp.tasks import add\n"
        "from tests.integration import shop\n"
        "assert [add.delay(n, 1).get(timeout=20) for n in range(20)]\n"
        "shop.unsteady.apply_async((9,), retries=2)\n"
        f"shop.hold.delay({str(tmp_path / 'release')!r})\n"
        "add.apply_async((1, 1), countdown=3600)\n",
    )  # fmt: skip

    def row() -> dict[str, Any]:
        return block(ask(f"{with_login}/nodes/data"), "table")["rows"][0]

    eventually(lambda: row().get("thread") == [1, 2])
    assert (row()["state"], row()["held"], row()["may"]) == ("running", 1, ["drain"])
    assert 0 <= ask(f"{with_login}/nodes/data").json["at"] - row()["seen_at"] < 15
    eventually(lambda: cards(ask(f"{with_login}/overview/data"))["failed, 1 h"] == 1)
    assert cards(ask(f"{with_login}/overview/data"))["done, 1 h"] == 20
    charts = [each for each in ask(f"{with_login}/overview/data").json["blocks"] if each["kind"] == "chart"]
    assert [len(chart["at"]) for chart in charts] == [60] * 4
    assert sum(sum(series["values"]) for series in charts[0]["series"]) == 20
    node.kill()
    run_in(
        redis_server, tmp_path,
        "from taskapp.tasks import add\n"
        "for n in range(7): add.apply_async((n, 1), queue='low', priority=5)\n"
        "add.apply_async((1, 1), queue='low')\n",
    )  # fmt: skip
    queues = {each["name"]: each for each in block(ask(f"{with_login}/queues/data"), "table")["rows"]}
    low, default = queues["low"], queues["default"]
    assert (low["depth"], low["priority_5"], low["priority_0"], low["priority_9"]) == (8, 7, 1, None)
    assert low["oldest_seconds"] > 0
    assert default["delayed"] == 1
    assert 3_500 < default["next_due_at"] - time.time() < 3_601


def test_a_node_is_drained_what_runs_finishes_and_what_waits_stays(
    with_login: str, worker: Callable[..., Process], redis_server: RedisServer, tmp_path: Path
) -> None:
    node = worker("-c", "1", TASKAPP_INCLUDE="tests.integration.shop")
    line, release = tmp_path / "line", tmp_path / "release"
    run_in(
        redis_server, tmp_path,
        "import taskapp.celery\n"
        "from tests.integration import shop\n"
        f"shop.hold.si({str(release)!r}).apply_async(link=shop.note.si('done', {str(line)!r}))\n"
        f"shop.hold.delay({str(release)!r})\n",
    )  # fmt: skip
    name = eventually(lambda: [row["node"] for row in block(ask(f"{with_login}/nodes/data"), "table")["rows"]])[0]
    eventually(lambda: cards(ask(f"{with_login}/nodes/data"))["tasks held"] >= 1)

    done = ask(f"{with_login}/nodes/actions/drain", body={"keys": [name, "nobody@here"]}).json

    assert (done["count"], done["problems"]) == (1, ["'nobody@here' is not running"])
    eventually(lambda: cards(ask(f"{with_login}/nodes/data"))["draining"] == 1)
    assert node.returncode is None
    release.touch()
    assert node.wait(20) == 0
    # The one that had not begun, and what follows the one that ran.
    assert redis_server.client.llen(Keys().ready("default")) == 2


# --- when the broker is away, or another -----------------------------------------------------------


def test_a_broker_that_is_away_or_frozen_gives_a_sentence_and_flowers_own_pages_answer(
    with_login: str, redis_server: RedisServer
) -> None:
    assert ask(f"{with_login}/schedules/data").status == 200

    for hurt, heal in ((redis_server.freeze, redis_server.thaw), (redis_server.kill, redis_server.start)):
        hurt()
        for tab in TABS:
            began_at = time.monotonic()
            answer = ask(f"{with_login}/{tab}/data")
            assert time.monotonic() - began_at < 20
            assert answer.status == 503
            assert "broker" in answer.json["error"] or "connection" in answer.json["error"]
            assert ask(f"{with_login}/{tab}").status == 200
        heal()
        eventually(lambda: ask(f"{with_login}/schedules/data").status == 200)


def test_flowers_own_pages_do_not_wait_behind_tabs_that_wait_for_the_broker(
    with_login: str, redis_server: RedisServer
) -> None:
    assert ask(f"{with_login}/tasks").status == 200
    redis_server.freeze()
    waits = list[float]()
    with ThreadPoolExecutor(12) as people:
        waiting = [people.submit(ask, f"{with_login}/queues/data") for _ in range(12)]
        while not all(each.done() for each in waiting):
            began_at = time.monotonic()
            assert ask(f"{with_login}/tasks").status == 200
            waits.append(time.monotonic() - began_at)

    assert {each.result().status for each in waiting} == {503}
    assert len(waits) > 3
    assert min(waits) < 1


def test_with_another_broker_each_tab_says_what_is_not_known(flower: Callable[..., str]) -> None:
    address = flower(WITH_LOGIN, TASKAPP_BROKER_URL="memory://")

    for tab in TABS:
        note = block(ask(f"{address}/{tab}/data"), "note")
        assert "Redis" in note["text"]
    assert ask(f"{address}/schedules/actions/pause", body={"keys": ["x"]}).status == 409


# --- one file a tab --------------------------------------------------------------------------------


def test_one_file_adds_a_tab(flower: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "tabs_of_mine").mkdir()
    (tmp_path / "tabs_of_mine" / "workflows.py").write_text(
        "from taskapp.monitor.flower.page.tab import Tab\n"
        "from taskapp.monitor.flower.page.view import Note, View\n"
        "class Workflows(Tab):\n"
        "    name, title, about, order, without_engine = 'workflows', 'Workflows', 'Chains.', 60, 'Not here.'\n"
        "    def view(self, app, query):\n"
        "        return View([Note('a chain of ' + query['n'])])\n"
    )
    (tmp_path / "sitecustomize.py").write_text(
        f"import taskapp.monitor.flower.tabs as tabs\ntabs.__path__.append({str(tmp_path / 'tabs_of_mine')!r})\n"
    )
    address = flower(WITH_LOGIN)

    assert 'href="/workflows"' in ask(f"{address}/schedules").body
    assert 'href="/workflows"' in ask(f"{address}/tasks").body
    assert block(ask(f"{address}/workflows/data?n=3"), "note")["text"] == "a chain of 3"
