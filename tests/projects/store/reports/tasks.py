"""Six task types."""

from pathlib import Path

from celery import chord, shared_task
from django.conf import settings
from django.db import transaction

from accounts.models import Entry, enter


@shared_task(bind=True)
def nightly(self, kind):
    return enter(self, f"nightly {kind}")


@shared_task
def part(number):
    return {"part": number, "rows": number * 10}


@shared_task(bind=True)
def merge(self, parts, name):
    (settings.BASE_DIR / name).write_text(str(sum(each["rows"] for each in parts)))
    return enter(self, f"merged {len(parts)}")


@shared_task(bind=True)
def after_commit(self, number):
    return enter(self, f"sees {Entry.objects.filter(text=f'row {number}').exists()}")


@shared_task
def upload(name):
    return Path(settings.BASE_DIR / name).stat().st_size > 0


@shared_task(bind=True, serializer="json", compression="gzip", expires=3600)
def big(self, text):
    return len(text)


def report(name, parts):
    """Return a chord that writes a report and then uploads it."""
    return chord([part.s(n) for n in range(parts)], merge.s(name) | upload.si(name))


def write_and_submit(number):
    with transaction.atomic():
        Entry.objects.create(task_id="", name="", text=f"row {number}")
        after_commit.delay_on_commit(number)
