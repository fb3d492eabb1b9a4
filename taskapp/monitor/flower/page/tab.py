"""The interface of a tab. To add one, put a module with a subclass of ``Tab`` into ``taskapp.monitor.flower.tabs``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from taskapp.app.application import Celery
from taskapp.monitor.flower.page.view import View

TAKEN_MOST = 1_000
"""Maximum number of rows per action."""


@dataclass(frozen=True)
class PageQuery:
    """The query string of a page."""

    values: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        """Return one value, stripped; empty if not given."""
        return self.values.get(name, "").strip()


class ActionRequest(NamedTuple):
    """A request to act on rows."""

    keys: Sequence[str]
    """The rows to act on."""
    fits: PageQuery | None
    """Instead of ``keys``: act on all rows that match this query."""
    cursor: str
    """Where to continue; empty: at the beginning."""
    asked_at: float
    """When the user loaded the page, Unix seconds by the server's clock; later rows are left alone."""
    who: str
    """Name of the user; empty if unknown."""


@dataclass(frozen=True)
class Done:
    """The result of an action."""

    count: int
    """Number of rows acted on."""
    text: str
    """Summary for people."""
    problems: Sequence[str] = ()
    """What failed, one sentence each."""
    cursor: str = ""
    """With ``ActionRequest.fits``: where to continue; empty when all rows are done."""


Action = Callable[[Celery, ActionRequest], Done]


class NotFound(LookupError):
    """The subject of a page does not exist, or no longer exists."""


class Tab(ABC):
    """One tab. Its methods run on separate threads and may wait for the broker."""

    name: ClassVar[str]
    """Name in URLs."""
    title: ClassVar[str]
    about: ClassVar[str]
    """One line below the title."""
    order: ClassVar[int]
    """Position among the tabs, ascending."""
    row_noun: ClassVar[str] = "rows"
    """What its rows are called, in the plural; shown when several are acted on."""
    without_engine: ClassVar[str]
    """Note for a broker other than Redis: what is unknown there, and where to look instead."""

    @abstractmethod
    def view(self, app: Celery, query: PageQuery) -> View:
        """Return the content of the page.

        Raises:
            NotFound: The subject of the page does not exist.
            NoEngine: The tab needs the engine, and the broker is not Redis.
            Others: The errors of ``app.engine()``.
        """

    @property
    def actions(self) -> Mapping[str, Action]:
        """The tab's actions by their names in URLs; they raise as ``view`` does."""
        return {}


def each_of(order: ActionRequest, act: Callable[[str], Any], done: str, errors: tuple[type[Exception], ...]) -> Done:
    """Call ``act`` with each key; report keys that raise one of ``errors`` as problems and continue."""
    problems, count = [], 0
    for key in order.keys:
        try:
            act(key)
            count += 1
        except errors as error:
            problems.append(str(error))
    return Done(count, f"{done} {order.keys[0]!r}" if len(order.keys) == 1 and count else f"{done} {count:,}", problems)
