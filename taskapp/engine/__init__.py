"""The delivery engine: leases, claims, settlements. It depends on neither Celery nor kombu."""
