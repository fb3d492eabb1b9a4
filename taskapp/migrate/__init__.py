"""Moving in from stock Celery: what its workers left in Redis."""
