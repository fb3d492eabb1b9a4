"""Every finished task in SQL: ``taskapp history run`` writes it; people and programs search it.

    nodes ──► stream in Redis (engine/completions.py) ──► Writer ──► table ──► History.search, .get

``open_history(settings)`` returns a ``History``; see docs/history.md.

Raises:
    HistoryPackageMissing: On import: SQLAlchemy is not installed.
"""

from importlib.util import find_spec

from taskapp.errors.history import HistoryPackageMissing

if find_spec("sqlalchemy") is None:
    raise HistoryPackageMissing("sqlalchemy", "history")

from taskapp.monitor.history.history import History, open_history
from taskapp.monitor.history.search import Page, Query
from taskapp.monitor.history.writer import Writer

__all__ = ["History", "Page", "Query", "Writer", "open_history"]
