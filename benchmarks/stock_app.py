"""Stock Celery as its users set it up when no task may be lost."""

import os

from celery import Celery

app = Celery("stock", broker=os.environ["STOCK_URL"], backend=os.environ["STOCK_URL"])
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_send_task_events=True,
    task_send_sent_event=True,
    task_track_started=True,
    result_extended=True,
    task_default_queue="default",
    broker_connection_retry_on_startup=True,
)


@app.task(name="stock.noop")
def noop(x: int, y: int) -> int:
    return x + y
