"""The page of a report: summaries, charts and one template to one HTML text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from taskapp.tasks.data_processing import Aggregated, Scalar
from taskapp.tasks.report_charts import draw
from taskapp.tasks.report_generation import Report, Summary, TableData
from taskapp.tasks.report_totals import combine, summarise, total_of

_ENVIRONMENT = Environment(
    loader=PackageLoader("taskapp.tasks", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def page(report: Report, parts: Sequence[Aggregated]) -> str:
    """Return the whole HTML. The same report and parts give the same text.

    The numbers stand in it once more as JSON, in the element ``report-data``, for programs.
    """
    rows = combine(report, parts)
    tiles = {tile.name: total_of(rows, tile) for tile in report.tiles}
    tables = [summarise(rows, section.summary) for section in report.sections]
    sections = [
        {
            "heading": section.heading,
            "text": section.text,
            "chart": draw(section.chart, table, section.heading) if section.chart and table.rows else None,
            "table": _shown(table, section.summary) if section.table else None,
        }
        for section, table in zip(report.sections, tables, strict=True)
    ]
    template = _ENVIRONMENT.get_template("report.html.j2")
    return template.render(
        report=report,
        tiles=[(tile.name, text_of(tiles[tile.name], tile.decimals)) for tile in report.tiles],
        sections=sections,
        data=_json_for_script({"tiles": tiles, "sections": [table.model_dump() for table in tables]}),
    )


def text_of(value: Scalar, decimals: int) -> str:
    """Return ``value`` as people read it: thousands apart, a dash where there is none."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,.{decimals}f}"


def _shown(table: TableData, summary: Summary) -> dict[str, Any]:
    names = len(summary.group_by)
    return {
        "columns": [(column, index >= names) for index, column in enumerate(table.columns)],
        "rows": [
            [
                (text_of(value, summary.totals[index - names].decimals if index >= names else 0), index >= names)
                for index, value in enumerate(row)
            ]
            for row in table.rows
        ],
    }


def _json_for_script(data: object) -> Markup:
    text = json.dumps(data, ensure_ascii=False, sort_keys=True, allow_nan=False)
    # Inside a script element only these can end it or start a comment.
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704
