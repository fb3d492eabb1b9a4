"""The submitting side: from ``delay()`` to the engine, and from the event loop of a web app.

``terms`` is what of the configuration a submit depends on, ``message`` what Celery says of a task in its
message, ``sender`` brings it to the engine; ``pusher`` does so for coroutines, and ``results`` are what they
await.
"""
