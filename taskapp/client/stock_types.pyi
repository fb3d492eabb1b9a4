"""Celery's classes as ``celery-types`` describes them, or ``fallback_types`` where it is not installed.

mypy takes the first import that it can follow, and pyright, which reads the code of Celery, the last one.
"""

from celery.app.base import *
from celery.app.task import *
from celery.canvas import *
from celery.result import *
from taskapp.client.fallback_types import *  # type: ignore[assignment]
from celery.app.base import *
from celery.app.task import *
from celery.canvas import *
from celery.result import *
