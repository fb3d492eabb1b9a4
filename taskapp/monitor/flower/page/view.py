"""The content of a tab as values: the page draws them, programs read them as JSON.

A tab returns raw numbers and texts and declares the kind of each (``as_``). One script, which knows no tab,
draws them all, so everything from outside is drawn in one place, as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

Kind = Literal["text", "code", "state", "count", "seconds", "bytes", "time", "share", "decimal"]
"""Texts, numbers, durations and Unix seconds; ``share`` is a pair of used and total. ``None`` is drawn as a dash."""
Tone = Literal["", "active", "success", "warning", "danger"]


@dataclass(frozen=True)
class Note:
    """A sentence across the page."""

    kind: ClassVar[str] = "note"
    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Card:
    """One key figure."""

    label: str
    value: Any
    as_: Kind = "count"
    tone: Tone = ""


@dataclass(frozen=True)
class Cards:
    """Key figures, side by side."""

    kind: ClassVar[str] = "cards"
    cards: Sequence[Card]


@dataclass(frozen=True)
class Field:
    """One filter; its value is in the query string under ``name``."""

    name: str
    label: str
    value: str
    options: Sequence[str] = ()
    """Allowed values; if empty, any text."""


@dataclass(frozen=True)
class Filters:
    """The filters for the rows below."""

    kind: ClassVar[str] = "filters"
    fields: Sequence[Field]


@dataclass(frozen=True)
class Button:
    """Button for an action of the tab; see ``Tab.actions``."""

    action: str
    label: str
    tone: Tone = ""
    asks: str = ""
    """Question to confirm first, with ``{}`` for the rows; if empty, only several rows need confirmation."""
    confirm: str = ""
    """Label of the confirming button for several rows, with ``{}`` for them; empty: ``label`` and the rows."""
    for_many: bool = True
    """Whether it can act on several selected rows."""
    for_all: bool = False
    """Whether it can act on all matching rows, on every page."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    key: str
    label: str
    as_: Kind = "text"


@dataclass(frozen=True)
class TableBlock:
    """Rows of one page.

    A row's ``may`` lists the actions that apply to it; if missing, all do. ``hints`` holds longer texts for its
    cells, by column.
    """

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    empty: str
    """Text to show when there are no rows, with what to do about it."""
    key: str = ""
    """The column that identifies a row, for tables with details or actions."""
    has_details: bool = False
    """Whether ``?show=…`` shows one row."""
    buttons: Sequence[Button] = ()
    cursor: str = ""
    """Cursor of the next page; empty on the last one."""


@dataclass(frozen=True)
class FactLine:
    """One fact about the subject of the page."""

    label: str
    value: Any
    as_: Kind = "text"


@dataclass(frozen=True)
class FactsBlock:
    """Facts about the subject of the page, and its actions."""

    kind: ClassVar[str] = "facts"
    title: str
    facts: Sequence[FactLine]
    subject: str = ""
    """Key of the row the buttons act on."""
    buttons: Sequence[Button] = ()


@dataclass(frozen=True)
class Text:
    """A longer text, drawn with its line breaks."""

    kind: ClassVar[str] = "text"
    title: str
    text: str


@dataclass(frozen=True)
class Series:
    """The values of one line, or of one color of bars."""

    label: str
    values: Sequence[float | None]
    tone: Tone = ""


@dataclass(frozen=True)
class ChartBlock:
    """Values over time, one for each of ``at``."""

    kind: ClassVar[str] = "chart"
    title: str
    at: Sequence[float]
    """Unix seconds."""
    series: Sequence[Series]
    as_: Kind = "count"
    shape: Literal["bars", "lines"] = "bars"
    """Bars are stacked."""


Block = Note | Cards | Filters | TableBlock | FactsBlock | Text | ChartBlock


@dataclass(frozen=True)
class View:
    """The content of a tab, from top to bottom."""

    blocks: Sequence[Block]
    at: float | None = None
    """Time of the content, Unix seconds by the clock its times use; ``None``: now, by this machine's clock."""
    refresh_seconds: float = 5.0


def as_json(value: Any) -> Any:
    """Return a view, or part of one, as JSON-serializable values; each block has a ``kind``."""
    if hasattr(value, "__dataclass_fields__"):
        members = {each.name.rstrip("_"): as_json(getattr(value, each.name)) for each in fields(value)}
        return {"kind": value.kind, **members} if hasattr(value, "kind") else members
    if isinstance(value, Mapping):
        return {str(key): as_json(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [as_json(each) for each in value]
    return value
