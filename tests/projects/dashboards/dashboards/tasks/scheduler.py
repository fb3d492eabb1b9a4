import logging
from datetime import UTC, datetime, timedelta

from celery.exceptions import SoftTimeLimitExceeded
from flask import current_app
from sqlalchemy import delete, select

from dashboards.extensions import celery_app, db
from dashboards.models import Log, Report

logger = logging.getLogger(__name__)


class CommandError(Exception):
    pass


@celery_app.task(name="reports.scheduler")
def scheduler():
    """Start the reports that are due within a second, each at its time and with its limits."""
    config = current_app.config
    for report in db.session.scalars(select(Report).order_by(Report.id)):
        due = datetime.now(UTC) + timedelta(seconds=0.5)
        options = {"eta": due}
        if report.working_timeout is not None:
            options["time_limit"] = report.working_timeout + config["ALERT_REPORTS_WORKING_TIME_OUT_LAG"]
            options["soft_time_limit"] = report.working_timeout + config["ALERT_REPORTS_WORKING_SOFT_TIME_OUT_LAG"]
        logger.info("Scheduling alert %s eta: %s", report.name, due)
        execute.apply_async((report.id, due), **options)


@celery_app.task(name="reports.execute")
def execute(report_id, scheduled):
    request = execute.request
    try:
        report = db.session.get(Report, report_id)
        if report.name == "broken":
            raise CommandError("no recipients")
        late = datetime.now(UTC) >= scheduled
        limits = list(request.timelimit or ())
        text = f"{report.name} late={late} limits={limits} eta={type(request.eta).__name__}"
        db.session.add(Log(task_id=request.id, report_id=report_id, text=text))
        db.session.commit()
        send.delay(report.name)
    except CommandError:
        logger.exception("A downstream exception occurred while generating a report: %s", request.id)


@celery_app.task(name="reports.prune_log")
def prune_log():
    try:
        removed = db.session.execute(delete(Log).where(Log.report_id.is_not(None))).rowcount
        db.session.commit()
    except SoftTimeLimitExceeded as error:
        logger.warning("A timeout occurred while pruning: %s", error)
    return removed > 0


@celery_app.task(name="email_reports.send")
def send(name):
    db.session.add(Log(task_id=send.request.id, text=f"sent {name}"))
    db.session.commit()
