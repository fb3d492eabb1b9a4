"""Seven task types."""

from celery import Task, chord, current_app, current_task, group, shared_task

from accounts.models import Entry, enter


class Reindex(Task):
    name = "catalog.tasks.reindex"
    ignore_result = False

    def run(self, product):
        return enter(self, f"reindexed {product}")


reindex = current_app.register_task(Reindex())


@shared_task(bind=True, priority=9)
def price(self, product, factor=1):
    return product * factor


@shared_task
def total(prices):
    return sum(prices)


@shared_task(bind=True)
def reprice(self, products):
    """Replace itself by a chord."""
    return self.replace(chord([price.s(each, factor=2) for each in products], total.s()))


@shared_task(bind=True, soft_time_limit=1, time_limit=10)
def slow_import(self, seconds):
    import time

    from celery.exceptions import SoftTimeLimitExceeded

    try:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.02)
    except SoftTimeLimitExceeded:
        return enter(self, "import stopped")
    return enter(self, "imported")


@shared_task
def who_am_i():
    Entry.objects.create(task_id=current_task.request.id, name=current_task.name)
    return [current_task.name, current_task.request.delivery_info["routing_key"]]


@shared_task(bind=True)
def fan_out(self, count):
    """Submit from inside a task."""
    job = group(price.s(n) for n in range(count)).apply_async()
    return [each.id for each in job.results]
