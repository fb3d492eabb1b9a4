from contextlib import contextmanager
from time import monotonic

from django.core.cache import cache


@contextmanager
def cache_lock(lock_id, seconds, owner):
    """Celery's cookbook: one task of a kind at a time."""
    until = monotonic() + seconds - 3
    taken = cache.add(lock_id, owner, seconds)
    try:
        yield taken
    finally:
        if monotonic() < until and taken:
            cache.delete(lock_id)
