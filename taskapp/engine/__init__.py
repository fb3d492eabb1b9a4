"""The delivery engine: leases, claims, settling. It knows neither Celery nor kombu."""
