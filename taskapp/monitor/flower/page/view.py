"""What a tab shows, as values: the page draws them, programs read them as JSON.

A tab returns raw numbers and texts and says of each what it is (``as_``); how that looks is the
script's business, which knows no tab. So all that came from outside is drawn in one place, as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal

Kind = Literal["text", "code", "state", "count", "seconds", "bytes", "time", "share", "decimal"]
"""Texts; numbers, durations and Unix seconds; ``share`` is a pair, used and total. ``None`` shows as a dash."""
Tone = Literal["", "active", "success", "warning", "danger"]


@dataclass(frozen=True)
class Note:
    """A sentence across the page."""

    kind: ClassVar[str] = "note"
    text: str
    tone: Tone = ""


@dataclass(frozen=True)
class Card:
    """One number that matters."""

    label: str
    value: Any
    as_: Kind = "count"
    tone: Tone = ""


@dataclass(frozen=True)
class Cards:
    """Numbers that matter, side by side."""

    kind: ClassVar[str] = "cards"
    cards: Sequence[Card]


@dataclass(frozen=True)
class Field:
    """One thing to filter by; it is in the address of the page under ``name``."""

    name: str
    label: str
    value: str
    options: Sequence[str] = ()
    """What can be chosen; without, any text."""


@dataclass(frozen=True)
class Filters:
    """What the rows below are chosen by."""

    kind: ClassVar[str] = "filters"
    fields: Sequence[Field]


@dataclass(frozen=True)
class Button:
    """An action of the tab, see ``Tab.actions``."""

    action: str
    label: str
    tone: Tone = ""
    asks: str = ""
    """What is asked first; empty: nothing. ``{}`` stands for what it is about."""
    for_many: bool = True
    """Whether several rows can be chosen for it."""
    for_all: bool = False
    """Whether it can be for all rows that fit, on whatever page."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    key: str
    label: str
    as_: Kind = "text"


@dataclass(frozen=True)
class TableBlock:
    """Rows of one page.

    A row's ``may`` names the actions that make sense for it, all where it is missing; ``hints`` are
    longer texts for its cells, by column.
    """

    kind: ClassVar[str] = "table"
    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    empty: str
    """What to say, and to do, when there are no rows."""
    key: str = ""
    """The column that names a row, where one can be shown by itself or acted on."""
    has_details: bool = False
    """Whether ``?show=…`` shows one row."""
    buttons: Sequence[Button] = ()
    cursor: str = ""
    """Where the next page begins; empty: this is the last."""


@dataclass(frozen=True)
class FactLine:
    """Something known of the one thing the page is about."""

    label: str
    value: Any
    as_: Kind = "text"


@dataclass(frozen=True)
class FactsBlock:
    """What is known of the one thing the page is about, and what can be done with it."""

    kind: ClassVar[str] = "facts"
    title: str
    facts: Sequence[FactLine]
    subject: str = ""
    """What the buttons act on."""
    buttons: Sequence[Button] = ()


@dataclass(frozen=True)
class Text:
    """A longer text, its line breaks kept."""

    kind: ClassVar[str] = "text"
    title: str
    text: str


@dataclass(frozen=True)
class Series:
    """The values of one line or one colour of bars."""

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
    """All that a tab shows, from top to bottom."""

    blocks: Sequence[Block]
    at: float | None = None
    """When it was so, Unix seconds by the clock that its times are of; ``None``: by this machine's."""
    refresh_seconds: float = 5.0


def as_json(value: Any) -> Any:
    """Return a view, or a part of one, as JSON has it; each block says what ``kind`` it is."""
    if hasattr(value, "__dataclass_fields__"):
        said = {each.name.rstrip("_"): as_json(getattr(value, each.name)) for each in fields(value)}
        return {"kind": value.kind, **said} if hasattr(value, "kind") else said
    if isinstance(value, Mapping):
        return {str(key): as_json(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [as_json(each) for each in value]
    return value
