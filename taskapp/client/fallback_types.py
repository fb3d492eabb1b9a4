"""What stands in for the classes of Celery, in ``fallback_types.pyi``: no code imports this module."""
