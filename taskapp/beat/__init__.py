"""``celery beat``: what it runs, and what it tells probes."""
