import logging
import time

from celery.exceptions import SoftTimeLimitExceeded
from flask import current_app, g

from dashboards.extensions import celery_app, db
from dashboards.models import CacheEntry, Log

logger = logging.getLogger(__name__)
query_timeout = current_app.config["SQLLAB_ASYNC_TIME_LIMIT_SEC"]


class VizError(Exception):
    def __init__(self, message, errors):
        super().__init__(message, errors)
        self.errors = errors


def ensure_user_is_set(user_id):
    assert not hasattr(g, "user"), "the user of another task"
    g.user = user_id


def update_job(task, status, **more):
    db.session.add(Log(task_id=task.request.id, text=f"{status} for {g.user} {more or ''}".strip()))
    db.session.commit()


@celery_app.task(name="load_chart_data_into_cache", soft_time_limit=query_timeout)
def load_chart_data_into_cache(job_metadata, form_data):
    task = load_chart_data_into_cache
    try:
        ensure_user_is_set(job_metadata.get("user_id"))
        time.sleep(form_data.get("seconds", 0))
        if form_data.get("bad"):
            raise VizError("no such column", [form_data["bad"]])
        key = f"chart-{form_data['chart']}"
        db.session.merge(CacheEntry(key=key, value=str(form_data)))
        update_job(task, "done", url=f"/chart/data/{key}")
    except SoftTimeLimitExceeded as error:
        logger.warning("a timeout occurred while loading chart data: %s", error)
        raise
    except Exception as error:
        update_job(task, "error", errors=getattr(error, "errors", None))
        raise


@celery_app.task(name="load_explore_json_into_cache", soft_time_limit=query_timeout)
def load_explore_json_into_cache(job_metadata, form_data, response_type=None, force=False):
    ensure_user_is_set(job_metadata.get("user_id"))
    db.session.merge(CacheEntry(key=f"ejr-{form_data['chart']}", value=str(response_type)))
    update_job(load_explore_json_into_cache, "done")


@celery_app.task(name="session.is_fresh")
def is_fresh():
    """Leave a session with a row that no one commits here; return whether there was none before."""
    fresh = not db.session.registry.has()
    db.session.add(Log(task_id=is_fresh.request.id, text="left to teardown"))
    return fresh
