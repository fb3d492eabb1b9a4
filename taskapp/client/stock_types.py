"""The classes of Celery as type checkers know them, in ``stock_types.pyi``: no code imports this module."""
