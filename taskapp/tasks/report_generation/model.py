"""What ``taskapp.report_generation`` takes and returns."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from taskapp.tasks.data_processing.model import Column, Scalar


class Total(BaseModel):
    """One number made of the rows of a group: ``function`` of ``column``, under ``name``."""

    model_config = ConfigDict(extra="forbid")

    name: Column
    function: Literal["sum", "mean", "min", "max", "count", "distinct"]
    column: Column
    weight: Column | None = None
    """For ``mean``: the column that says how much each row counts, as the rows behind a mean do."""
    decimals: Annotated[int, Field(ge=0, le=6)] = 0


class Leader(BaseModel):
    """The value of ``column`` whose rows have the largest ``total``: the busiest airport."""

    model_config = ConfigDict(extra="forbid")

    name: Column
    column: Column
    total: Total


class Fact(BaseModel):
    """A value that is known already."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    name: Column
    value: Scalar
    decimals: Annotated[int, Field(ge=0, le=6)] = 0


class Summary(BaseModel):
    """The combined rows of all parts, grouped again. Without ``group_by``, one row."""

    model_config = ConfigDict(extra="forbid")

    group_by: list[Column] = []
    totals: Annotated[list[Total], Field(min_length=1)]
    order_by: Column | None = None
    """A column of the result, largest first; by default groups stay in the order they come."""
    limit: Annotated[int, Field(ge=1, le=1_000)] = 1_000


class Table(BaseModel):
    """Rows under columns. The first ``names`` columns name a row, the others hold its numbers."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    columns: Annotated[list[str], Field(min_length=1)]
    rows: list[list[Scalar]]
    names: Annotated[int, Field(ge=0)] = 1
    decimals: list[Annotated[int, Field(ge=0, le=6)]] = []
    """Of each column of numbers; 0 where the list ends."""

    @model_validator(mode="after")
    def _rows_fit_columns(self) -> Table:
        for index, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {index} has {len(row)} values for {len(self.columns)} columns")
        return self


class Chart(BaseModel):
    """A picture of a section's table: its first column of numbers over its names.

    With two names, the second tells the lines, or the colours of the bars, apart; a ``heatmap``
    has it across.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["line", "bar", "stacked_bar", "horizontal_bar", "heatmap"]
    unit: str = ""


class Section(BaseModel):
    """A heading, a text, and a table: what the parts say, or rows that are known already."""

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


class Report(BaseModel):
    """What the report says and where it goes."""

    model_config = ConfigDict(extra="forbid")

    title: str
    subtitle: str = ""
    output_path: str
    """An HTML file below ``TASKAPP_FILE_DIRS``."""
    label_column: Column = "part"
    """The name of the column that says which part a row is of."""
    labels: list[str] = []
    """One a part, in their order. None for a report without parts."""
    tiles: list[Total | Leader | Fact] = []
    """What is most worth knowing, shown at the top."""
    sections: Annotated[list[Section], Field(min_length=1)]
    source: str = ""
    """Where the data are from, shown at the end."""

    @model_validator(mode="after")
    def _labels_differ(self) -> Report:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("two parts have the same label")
        return self


class Written(BaseModel):
    """The result."""

    path: str
    size_bytes: int
    sha256: str
