"""Eight task types."""

from celery import chain, shared_task
from celery.exceptions import Ignore, Reject

from accounts.models import Entry, enter


@shared_task(bind=True)
def place(self, number):
    return enter(self, f"placed {number}")


@shared_task(bind=True)
def pay(self, number):
    enter(self, f"paid {number}")
    return number


@shared_task(bind=True)
def ship(self, number, express=False):
    return enter(self, f"shipped {number} {'express' if express else 'slowly'}")


@shared_task
def note_failure(request, exc, traceback):
    """Be called back when another task has failed."""
    Entry.objects.create(task_id=request.id, name="callback", text=f"{type(exc).__name__} of {request.id}")


@shared_task
def refuse(number):
    raise ValueError(number)


@shared_task(bind=True)
def clean_carts(self):
    enter(self, "cleaned")


@shared_task(bind=True)
def ignore(self):
    self.update_state(state="LOOKED AT", meta={"by": "hand"})
    raise Ignore


@shared_task(bind=True, acks_late=True)
def reject(self):
    enter(self, "rejected")
    raise Reject("not now", requeue=False)


def checkout(number):
    """Return the chain of an order."""
    return chain(pay.s(number), ship.s(express=True))


def count(name):
    return Entry.objects.filter(name=name).count()
