"""``taskapp.data_processing``: filters, groups and aggregates a file of rows in bounded memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from taskapp.settings import get_settings
from taskapp.tasks.shared.files import allowed_path
from taskapp.tasks.shared.first_use import models_of
from taskapp.tasks.shared.shipped import shipped

if TYPE_CHECKING:
    from taskapp.tasks.data_processing.model import Aggregated, Aggregation, Filter, Measure, Order

__all__ = ["Aggregated", "Aggregation", "Filter", "Measure", "Order", "data_processing"]

if not TYPE_CHECKING:
    __getattr__ = models_of(__name__, __all__, "taskapp.tasks.data_processing.model")


@shipped(
    name="taskapp.data_processing", needs_extra="data",
    cpu_bound=True, soft_time_limit=3_300, time_limit=3_600,
)  # fmt: skip
def data_processing(aggregation: Aggregation) -> Aggregated:
    """Read a file, filter its rows, group them and compute measures for each group.

    A CSV column holds booleans, integers or numbers if all its values do, and text otherwise. Dates
    in CSV and JSON Lines are text; in ISO format they compare and sort correctly.

    Running it again reads the file again and writes nothing. The process stays below 256 MB for files
    of any size (``benchmarks/data_processing_memory.py``); groups that do not fit, and files with more
    than 10,000 columns, are an error. A soft time limit ends the query at once.

    Raises:
        PathNotAllowed: The file is outside ``TASKAPP_FILE_DIRS``.
        PermanentError: The file is missing or malformed, a column is unknown, or there are more groups
            than ``limit``. Not retried.
    """
    # Only the node that runs the task loads duckdb, not the web process that submits it.
    from taskapp.tasks.data_processing.model import aggregated
    from taskapp.tasks.data_processing.run import run

    path = allowed_path(aggregation.path, get_settings().allowed_roots, must_exist=True)
    started = time.monotonic()
    rows = run(aggregation, path)
    return aggregated(aggregation.columns, rows, seconds=time.monotonic() - started)
