"""Whole projects, written for stock Celery, on stock Celery and, with the one line changed, on taskapp."""
