"""A Flask project in the shape of Apache Superset (0031555).

Its app exists before its configuration, and gets a ``Task`` class that runs each call in the application's context;
tasks use a session for each thread, which ``task_postrun`` removes, and an engine that ``worker_process_init`` resets.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.projects.running import WAIT, Project
from tests.support import RedisServer, eventually

pytestmark = pytest.mark.timeout(300)
PROLOGUE = """
import time
from dashboards.tasks.celery_app import app, flask_app
app.loader.import_default_modules()
from celery import chord, group
from dashboards.extensions import db
from dashboards.models import *
from dashboards.sql_lab import *
from dashboards.tasks.async_queries import *
from dashboards.tasks.cache import *
from dashboards.tasks.scheduler import *
from dashboards.tasks.thumbnails import *
from sqlalchemy import func, select

Base.metadata.create_all(db.engine)

def until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    assert condition(), "not in time"

def new(row):
    with Session(db.engine, expire_on_commit=False) as session, session.begin():
        session.add(row)
    return row

def texts(*conditions):
    with Session(db.engine) as session:
        return list(session.scalars(select(Log.text).where(*conditions).order_by(Log.id)))

def of(result):
    return texts(Log.task_id == result.id)

def status(query):
    with Session(db.engine) as session:
        found = session.get(Query, query.id)
        return [found.status, found.error]

def ended(result):
    result.get(timeout=60, propagate=False)
    return [result.state, type(result.result).__name__ if result.failed() else result.result]
"""
POOLS = {
    "taskapp": ("-c", "4"),
    "taskapp-prefork": ("--pool=prefork", "-O", "fair", "-c", "4"),
    "stock": ("--pool=prefork", "-O", "fair", "-c", "4"),
}


class Site(Project):
    def say(self, code: str) -> object:
        return super().say(PROLOGUE + code)


@pytest.fixture(params=POOLS)
def site(request: pytest.FixtureRequest, redis_server: RedisServer, tmp_path: Path) -> Iterator[Site]:
    url, engine = redis_server.url, request.param.partition("-")[0]
    app = "dashboards.tasks.celery_app:app"
    site = Site("dashboards", engine, tmp_path, app=app, DASH_BROKER=url, DASH_RESULTS=f"{url[:-1]}1")
    site.workers(worker=POOLS[request.param])
    yield site
    site.close()


@pytest.mark.quick("taskapp")
def test_every_type(site: Site) -> None:
    said = site.say("""
good, bad, slow = (new(Query(sql=sql)) for sql in ("select 1; select 2, 'two'", "select missing", "sleep 20"))
said = {
    "query": ended(get_sql_results.delay(good.id, good.sql, user_name="ada")),
    "in the request": get_sql_results(good.id, "select 3"),
    "bad query": ended(get_sql_results.delay(bad.id, bad.sql)),
    "slow query": ended(get_sql_results.delay(slow.id, slow.sql)),
    "statuses": [status(good), status(bad), status(slow)],
}
chart = load_chart_data_into_cache.delay({"user_id": 7}, {"chart": 1})
wrong = load_chart_data_into_cache.delay({"user_id": 8}, {"chart": 2, "bad": "column x"})
explore = load_explore_json_into_cache.delay({}, {"chart": 3}, response_type="csv")
said |= {
    "chart": [*ended(chart), of(chart)],
    "wrong chart": [*ended(wrong), of(wrong)],
    "explore": [*ended(explore), of(explore)],
    "warm-up": ended(cache_warmup.delay("top_n_dashboards", top_n=3, since="1 day ago")),
    "no strategy": ended(cache_warmup.delay("x")),
    "wrong strategy": ended(cache_warmup.delay("top_n_dashboards", y=1)),
    "slack": ended(cache_channels.delay()),
    "thumbnails": [ended(cache_chart_thumbnail.delay(None, 1)), ended(cache_dashboard_thumbnail.delay("ada", 2))],
    "files": sorted(each.name for each in (flask_app.config["HERE"] / "thumbnails").iterdir()),
}
fresh = [is_fresh.delay() for _ in range(12)]
said["fresh"] = all(each.get(timeout=60) for each in fresh)
until(lambda: len(texts(Log.text == "left to teardown")) == 12)
for name, limit in (("plain", None), ("limited", 30), ("broken", None)):
    new(Report(name=name, working_timeout=limit))
scheduler.delay()
until(lambda: len(texts(Log.text.startswith("sent"))) == 2)
said["reports"] = sorted(texts(Log.report_id.is_not(None)))
said["pruned"] = ended(prune_log.delay())
said["chord"] = chord([fetch_url.s({"chart_id": n}, {"user": "u"}) for n in range(5)], is_fresh.si())().get(timeout=60)
with Session(db.engine) as session:
    said["cache"] = sorted(session.scalars(select(CacheEntry.key)))
""")

    assert said == {
        "query": ["SUCCESS", {"status": "success", "data": [[2, "two"]]}],
        "in the request": {"status": "success", "data": [[3]]},
        "bad query": ["SUCCESS", {"status": "failed", "error": "OperationalError: no such column: missing"}],
        "slow query": ["SUCCESS", {
            "status": "failed", "error": "SqlLabTimeout: queries are killed after 2 seconds",
        }],
        "statuses": [
            ["success", ""], ["failed", "OperationalError: no such column: missing"],
            ["failed", "SqlLabTimeout: queries are killed after 2 seconds"],
        ],
        "chart": ["SUCCESS", None, ["done for 7 {'url': '/chart/data/chart-1'}"]],
        "wrong chart": ["FAILURE", "VizError", ["error for 8 {'errors': ['column x']}"]],
        "explore": ["SUCCESS", None, ["done for None"]],
        "warm-up": ["SUCCESS", {"scheduled": [{"chart_id": n} for n in range(3)], "errors": []}],
        "no strategy": ["SUCCESS", "No strategy x found!"],
        "wrong strategy": ["SUCCESS", "Error loading strategy!"],
        "slack": ["FAILURE", "ConnectionError"],
        "thumbnails": [["SUCCESS", None], ["SUCCESS", None]],
        "files": ["chart-1", "dashboard-2"],
        "fresh": True,
        "reports": ["limited late=True limits=[40, 31] eta=str", "plain late=True limits=[None, None] eta=str"],
        "pruned": ["SUCCESS", True],
        "chord": True,
        "cache": ["chart-1", "ejr-3", "url-0", "url-1", "url-2", "url-3", "url-4"],
    }  # fmt: skip
    log = (site.folder / "worker.log").read_text()
    assert "disposed: dashboards" in log
    assert "Loading strategy top_n_dashboards of dashboards" in log
    assert "A downstream exception occurred while generating a report" in log


@pytest.mark.slow
def test_beat_and_questions(site: Site) -> None:
    site.say("new(Report(name='minutely', working_timeout=None))\nsaid = 0")
    site.beat()

    eventually(lambda: site.say("said = len(texts(Log.text == 'sent minutely')) >= 2"), WAIT, 0.5)
    asked = site.celery("inspect", "registered", "rate_limit", "--timeout", "10")
    assert "sql_lab.get_sql_results [rate_limit=100/s]" in asked
    assert "email_reports.send [rate_limit=2/s]" in asked
