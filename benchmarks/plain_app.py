"""taskapp without what stock Celery leaves out by default: task events, STARTED, extended results."""

from taskapp.celery import app

app.conf.update(
    worker_send_task_events=False, task_send_sent_event=False, task_track_started=False, result_extended=False
)
