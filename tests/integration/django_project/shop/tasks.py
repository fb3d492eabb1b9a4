import asyncio
import os

from celery import shared_task
from django.db import connection


def backend_pid() -> int:
    with connection.cursor() as cursor:
        cursor.execute("select pg_backend_pid()")
        return cursor.fetchone()[0]


@shared_task
def on_thread():
    return [backend_pid(), os.getpid()]


@shared_task
def nested():
    from asgiref.sync import async_to_sync, sync_to_async

    return async_to_sync(sync_to_async(backend_pid))()


@shared_task(cpu_bound=True)
def in_child():
    return [backend_pid(), os.getpid()]


@shared_task
async def on_loop(seconds=0.0):
    from asgiref.sync import sync_to_async

    pid = await sync_to_async(backend_pid)()
    await asyncio.sleep(seconds)
    return [pid, os.getpid()]


@shared_task
def zone():
    from django.utils import timezone

    return [str(timezone.get_current_timezone()), str(on_thread.app.timezone)]


@shared_task(cpu_bound=True)
async def coroutine_in_child():
    from asgiref.sync import sync_to_async

    return [await sync_to_async(backend_pid)(), os.getpid()]


@shared_task
async def in_chunks(count):
    """Keep a cursor of the server open over many turns of the loop."""
    from asgiref.sync import sync_to_async

    def begin():
        cursor = connection.chunked_cursor()
        cursor.execute("select * from generate_series(0, %s)", [count - 1])
        return cursor

    cursor = await sync_to_async(begin)()
    rows = []
    while row := await sync_to_async(cursor.fetchone)():
        rows.append(row[0])
        await asyncio.sleep(0.1)
    return rows


@shared_task
def report(number=0, a=0):
    return number + a


@shared_task
def broken(text):
    raise ValueError(text)


@shared_task(bind=True)
async def ends(self, how):
    if how == "raises":
        raise ValueError("no")
    if how == "retries" and not self.request.retries:
        raise self.retry(countdown=0)
    return "done"


@shared_task
async def ends_all(texts):
    return "".join(texts)


@shared_task(rate_limit="1/h")
def rated():
    pass
