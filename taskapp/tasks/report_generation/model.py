"""Payload and result of ``taskapp.report_generation``.

Schemas are built at first use (``defer_build``), because a node and a web app import all task types and use some.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from taskapp.tasks.data_processing.model import Column, Scalar


class Total(BaseModel, defer_build=True):
    """One number computed from the rows of a group: ``function`` of ``column``, shown as ``name``."""

    model_config = ConfigDict(extra="forbid")

    name: Column
    function: Literal["sum", "mean", "min", "max", "count", "distinct"]
    column: Column
    weight: Column | None = None
    """For ``mean``: column with the weight of each row, such as the number of values behind a partial mean."""
    decimals: Annotated[int, Field(ge=0, le=6)] = 0


class Leader(BaseModel, defer_build=True):
    """The value of ``column`` whose rows have the largest ``total``: the busiest airport."""

    model_config = ConfigDict(extra="forbid")

    name: Column
    column: Column
    total: Total


class Fact(BaseModel, defer_build=True):
    """A given value."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: Column
    value: Scalar
    decimals: Annotated[int, Field(ge=0, le=6)] = 0


class Summary(BaseModel, defer_build=True):
    """The rows of all parts, grouped again. Without ``group_by``, a single row."""

    model_config = ConfigDict(extra="forbid")

    group_by: list[Column] = []
    totals: Annotated[list[Total], Field(min_length=1)]
    order_by: Column | None = None
    """Column of the result to sort by, largest first; by default groups stay in order of appearance."""
    limit: Annotated[int, Field(ge=1, le=1_000)] = 1_000


class Table(BaseModel, defer_build=True):
    """Rows and columns. The first ``names`` columns name a row, the others hold its numbers."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    columns: Annotated[list[str], Field(min_length=1)]
    rows: list[list[Scalar]]
    names: Annotated[int, Field(ge=0)] = 1
    decimals: list[Annotated[int, Field(ge=0, le=6)]] = []
    """Decimals of each column of numbers; 0 for columns beyond the list."""

    @model_validator(mode="after")
    def _rows_fit_columns(self) -> Table:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {index} has {len(row)} values for {len(self.columns)} columns")
        return self


class Chart(BaseModel, defer_build=True):
    """A chart of a section's table: its first column of numbers by its names.

    With two columns of names, the second distinguishes the lines or the colors of the bars; in a ``heatmap`` it
    runs across.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["line", "bar", "stacked_bar", "horizontal_bar", "heatmap"]
    unit: str = ""


class Section(BaseModel, defer_build=True):
    """A heading, a text, and a table: a summary of the parts, or given rows."""

    model_config = ConfigDict(extra="forbid")

    heading: str
    text: str = ""
    summary: Summary | None = None
    literal: Table | None = None
    chart: Chart | None = None
    table: bool = True

    @model_validator(mode="after")
    def _has_one_table(self) -> Section:
        if (self.summary is None) == (self.literal is None):
            raise ValueError("a section needs either a summary or a literal table")
        return self


class Report(BaseModel, defer_build=True):
    """The content of the report and where to write it."""

    model_config = ConfigDict(extra="forbid")

    title: str
    subtitle: str = ""
    output_path: str
    """An HTML file below ``TASKAPP_FILE_DIRS``."""
    label_column: Column = "part"
    """Name of the column with the label of each row's part."""
    labels: list[str] = []
    """One label per part, in order; empty for a report without parts."""
    tiles: list[Total | Leader | Fact] = []
    """Key figures, shown at the top."""
    sections: Annotated[list[Section], Field(min_length=1)]
    source: str = ""
    """Source of the data, shown at the end."""

    @model_validator(mode="after")
    def _labels_differ(self) -> Report:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("two parts have the same label")
        return self


class Written(BaseModel, defer_build=True):
    """The written file."""

    path: str
    size_bytes: int
    sha256: str
