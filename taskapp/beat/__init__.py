"""``celery beat``: the program, its schedulers and its probes."""
