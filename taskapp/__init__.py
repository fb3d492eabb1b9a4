"""taskapp: a distributed task scheduler for Python teams, built on Celery.

The map, in the order data flows:

``queues``      which queues there are, their order, and which task type goes where
``settings``    ``TASKAPP_*`` and ``.env`` to one validated, frozen object
``celery``      the Celery application; the only place where the parts are wired together
``tasks``       the task types that ship, one file each
``devredis``    a Redis server of our own, for development, demo and tests
``application`` what every submit passes through; ``lending`` what an app lends of its Redis
``client``      the submitting side: a task's message, and what coroutines await
``broker``      how messages travel: the kombu transport
``worker``      what a node does: its pool, one run, probes and its end
``monitor``     what is watched: metrics, the exporter, Flower's defaults
``cli``         the ``taskapp`` command, one file a command group
``demo``        the main job on real data, from server start to e-mail

Importing this package imports nothing else. Web applications import the task types they
submit: ``from taskapp.tasks import add; add.delay(2, 3)``.
"""

__version__ = "0.1.0"
