"""The submitting side: from ``delay()`` to the engine, and from the event loop of a web app.

``terms`` is what of the configuration a submit depends on, ``message`` what Celery says of a task in its
message, ``stencil`` its bytes and ``sent_event`` the news of it; ``sender`` brings it to the engine, ``canvas`` a
group of them; ``pusher`` does so for coroutines, and ``results`` are what they
await.
"""
