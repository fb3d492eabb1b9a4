"""Stock Celery as its users set it up when no task may be lost."""

import os

from celery import Celery

app = Celery("stock", broker=os.environ["STOCK_URL"], backend=os.environ["STOCK_URL"])
is_watched = bool(os.environ["STOCK_WATCHED"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_send_task_events=is_watched,
    task_send_sent_event=is_watched,
    task_track_started=is_watched,
    result_extended=is_watched,
    task_default_queue="default",
    broker_connection_retry_on_startup=True,
)


@app.task(name="stock.noop")
def noop(x: int, y: int) -> int:
    return x + y
