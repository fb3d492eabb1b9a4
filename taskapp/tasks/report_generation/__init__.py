"""``taskapp.report_generation``: writes a self-contained HTML report with tables and charts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from taskapp.settings import get_settings
from taskapp.tasks.shared.files import allowed_path, written_at_once
from taskapp.tasks.shared.first_use import models_of
from taskapp.tasks.shared.shipped import shipped

if TYPE_CHECKING:
    from taskapp.tasks.data_processing.model import Aggregated
    from taskapp.tasks.report_generation.model import (
        Chart,
        Fact,
        Leader,
        Report,
        Section,
        Summary,
        Table,
        Total,
        Written,
    )

__all__ = [
    "Aggregated",
    "Chart",
    "Fact",
    "Leader",
    "Report",
    "Section",
    "Summary",
    "Table",
    "Total",
    "Written",
    "report_generation",
]

if not TYPE_CHECKING:
    __getattr__ = models_of(
        __name__, __all__, "taskapp.tasks.data_processing.model", "taskapp.tasks.report_generation.model"
    )


@shipped(
    name="taskapp.report_generation", needs_extra="reports",
    cpu_bound=True, soft_time_limit=300, time_limit=360,
)  # fmt: skip
def report_generation(parts: list[Aggregated], report: Report) -> Written:
    """Write a report about ``parts``, results of ``data_processing``, to ``report.output_path``.

    Designed as the body of a chord whose header computes the parts. The file appears completely or not
    at all. Running it again with the same parts writes the same bytes.

    Raises:
        PathNotAllowed: The path is outside ``TASKAPP_FILE_DIRS``.
        PermanentError: Parts and labels do not match, or a total names an unknown column.
    """
    # Only the node that runs the task loads matplotlib and jinja2.
    from taskapp.tasks.report_generation.model import Written
    from taskapp.tasks.report_generation.run import page

    path = allowed_path(report.output_path, get_settings().allowed_roots, must_exist=False)
    html = page(report, parts)
    with written_at_once(path) as file:
        file.write(html)
    encoded = html.encode()
    return Written(path=str(path), size_bytes=len(encoded), sha256=hashlib.sha256(encoded).hexdigest())
