"""The Celery application and the base class of its task types."""
