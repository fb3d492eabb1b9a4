import logging

from celery.utils.log import get_task_logger
from flask import current_app

from dashboards.extensions import celery_app, db
from dashboards.models import CacheEntry

logger = get_task_logger(__name__)
logger.setLevel(logging.INFO)


class TopNStrategy:
    name = "top_n_dashboards"

    def __init__(self, top_n=5, since="7 days ago"):
        self.top_n = top_n

    def get_tasks(self):
        return [{"chart_id": number} for number in range(self.top_n)]


@celery_app.task(name="fetch_url")
def fetch_url(data, headers):
    db.session.merge(CacheEntry(key=f"url-{data['chart_id']}", value=headers["user"]))
    db.session.commit()
    return {"success": data["chart_id"]}


@celery_app.task(name="cache-warmup")
def cache_warmup(strategy_name, *args, **kwargs):
    logger.info("Loading strategy %s of %s", strategy_name, current_app.name)
    if strategy_name != TopNStrategy.name:
        return f"No strategy {strategy_name} found!"
    try:
        strategy = TopNStrategy(*args, **kwargs)
    except TypeError:
        logger.exception("Error loading strategy!")
        return "Error loading strategy!"
    results = {"scheduled": [], "errors": []}
    for task in strategy.get_tasks():
        fetch_url.delay(task, {"user": "admin"})
        results["scheduled"].append(task)
    return results


@celery_app.task(name="slack.cache_channels", time_limit=300, soft_time_limit=240)
def cache_channels():
    raise ConnectionError("slack is away")
