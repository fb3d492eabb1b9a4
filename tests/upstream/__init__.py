"""The tests and examples of Celery, kombu and Flower, run on taskapp: from their source distributions, as pinned."""
