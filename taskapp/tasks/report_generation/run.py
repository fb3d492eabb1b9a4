"""Renders the page of a report: summaries, charts and a template become one HTML text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from taskapp.tasks.data_processing.model import Aggregated, Scalar
from taskapp.tasks.report_generation.charts import draw, name_of
from taskapp.tasks.report_generation.model import Report, Table
from taskapp.tasks.report_generation.totals import combine, table_of, tile_of

_ENVIRONMENT = Environment(
    loader=PackageLoader("taskapp.tasks", "templates"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
)


def page(report: Report, parts: Sequence[Aggregated]) -> str:
    """Return the whole HTML. The same report and parts give the same text.

    For programs, the element ``report-data`` contains the numbers again as JSON.
    """
    rows = combine(report, parts)
    tiles = {tile.name: tile_of(rows, tile) for tile in report.tiles}
    tables = [table_of(rows, section) for section in report.sections]
    sections = [
        {
            "heading": section.heading,
            "text": section.text,
            "chart": draw(section.chart, table, section.heading, number) if section.chart and table.rows else None,
            "table": _shown(table) if section.table else None,
        }
        for number, (section, table) in enumerate(zip(report.sections, tables, strict=True))
    ]
    template = _ENVIRONMENT.get_template("report.html.j2")
    return template.render(
        report=report,
        tiles=[(tile.name, text_of(tiles[tile.name], getattr(tile, "decimals", 0))) for tile in report.tiles],
        sections=sections,
        data=_json_for_script({"tiles": tiles, "sections": [table.model_dump() for table in tables]}),
    )


def text_of(value: Scalar, decimals: int) -> str:
    """Format ``value`` for people: with thousands separators; a dash if it is missing."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, bool | str):
        return str(value)
    return f"{value:,.{decimals}f}"


def _shown(table: Table) -> dict[str, Any]:
    """Return cells as pairs of text and "is a number"; names stay as they are, so a year has no separator."""
    decimals = [*table.decimals, *[0] * len(table.columns)]
    is_number = [index >= table.names for index in range(len(table.columns))]
    return {
        "columns": list(zip(table.columns, is_number, strict=True)),
        "rows": [
            [
                (text_of(value, decimals[index - table.names]) if number else name_of(value), number)
                for index, (value, number) in enumerate(zip(row, is_number, strict=True))
            ]
            for row in table.rows
        ],
    }


def _json_for_script(data: object) -> Markup:
    text = json.dumps(data, ensure_ascii=False, sort_keys=True, allow_nan=False)
    # Only these characters can end a script element or start a comment in it.
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704
