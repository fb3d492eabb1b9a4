"""Migration from stock Celery: messages that its workers left in Redis."""
