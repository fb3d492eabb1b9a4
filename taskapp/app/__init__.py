"""The Celery application, and what each of its task types is made of."""
