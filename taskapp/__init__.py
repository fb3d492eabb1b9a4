"""taskapp: a distributed task scheduler for Python teams, built on Celery.

The rooms, from the bottom up; each may import only from those above it here (``pyproject.toml`` has the contract):

``errors``      what taskapp raises, and the words it uses
``queues``      which queues there are, their order, and which task type goes where
``settings``    ``TASKAPP_*`` and ``.env`` to one validated, frozen object
``devredis``    a Redis server of our own, for development, demo and tests
``redis``       keys, Lua scripts and connections
``engine``      delivery: leases, claims, settling, delayed and dead messages; knows neither Celery nor kombu
``migrate``     moving in from stock Celery
``transport``   the engine as a kombu transport, and kombu's RabbitMQ with limits
``results``     Celery's result backends, fenced
``client``      the submitting side: a task's message, and results that coroutines await
``schedules``   when timed jobs are due, and which beat sends them
``tracing``     spans of OpenTelemetry
``probes``      what nodes and beats write of themselves, and the probes that read it
``execution``   what a run needs wherever it takes place
``app``         the Celery application and the class of its tasks
``worker``      a node: ``consume`` (message to request), ``pool`` (slots), ``run`` (one run), and its start and end
``beat``        ``celery beat``
``logs``        what is logged, and how
``celery``      the application of ``celery -A taskapp``; the only place where the parts are wired together
``tasks``       the task types that ship
``monitor``     what is watched: metrics, the exporter, the history, Flower's tabs
``demo``        the main job on real data, from server start to e-mail
``cli``         the ``taskapp`` command, one file a command group

Importing this package imports nothing else. Web applications import the task types they
submit: ``from taskapp.tasks import add; add.delay(2, 3)``.
"""

__version__ = "0.1.0"
