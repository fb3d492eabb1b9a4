from flask import current_app

from dashboards.extensions import celery_app


def _compute(kind, number, force):
    folder = current_app.config["HERE"] / "thumbnails"
    folder.mkdir(exist_ok=True)
    target = folder / f"{kind}-{number}"
    if force or not target.exists():
        target.write_text(f"{kind} {number}")


@celery_app.task(name="cache_chart_thumbnail", soft_time_limit=300)
def cache_chart_thumbnail(current_user, chart_id, force=False, window_size=None, thumb_size=None):
    _compute("chart", chart_id, force)


@celery_app.task(name="cache_dashboard_thumbnail", soft_time_limit=300)
def cache_dashboard_thumbnail(current_user, dashboard_id, force=False, thumb_size=None, window_size=None):
    _compute("dashboard", dashboard_id, force)
