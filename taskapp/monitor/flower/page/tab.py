"""What a tab is. One module in ``taskapp.monitor.flower.tabs`` with one subclass of ``Tab`` adds one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from taskapp.app.application import Application
from taskapp.monitor.flower.page.view import View

TAKEN_MOST = 1_000
"""Rows one call may act on."""


@dataclass(frozen=True)
class Asked:
    """What the address of a page asks for."""

    values: Mapping[str, str]

    def __getitem__(self, name: str) -> str:
        """Return one value; empty where it is not given."""
        return self.values.get(name, "").strip()


class ActionRequest(NamedTuple):
    """What somebody wants done."""

    keys: Sequence[str]
    """The rows it is about."""
    fits: Asked | None
    """Instead of keys: all rows that fit this."""
    cursor: str
    """Where to go on; empty: at the beginning."""
    asked_at: float
    """When the one who wants it had looked, Unix seconds of the server: later rows are not meant."""
    who: str
    """Who wants it; empty if they have no name."""


@dataclass(frozen=True)
class Done:
    """What came of an order."""

    count: int
    text: str
    """For people."""
    problems: Sequence[str] = ()
    """What did not work, one sentence each."""
    cursor: str = ""
    """With ``ActionRequest.fits``: where to go on; empty: all is done."""


Action = Callable[[Application, ActionRequest], Done]


class NotThere(LookupError):
    """What a page is about does not exist, or not any more."""


class Tab(ABC):
    """One tab. Its methods run on threads of their own and may wait for the broker."""

    name: ClassVar[str]
    """In addresses."""
    title: ClassVar[str]
    about: ClassVar[str]
    """One line below the title."""
    order: ClassVar[int]
    """Tabs stand by it."""
    without_engine: ClassVar[str]
    """What to say with a broker that is not Redis: what is not known there, and where to look."""

    @abstractmethod
    def view(self, app: Application, asked: Asked) -> View:
        """Return what the page shows.

        Raises:
            NotThere: What it is about does not exist.
            NoEngine: It needs the engine and the broker is not Redis.
            Others: As ``app.engine()`` does.
        """

    @property
    def actions(self) -> Mapping[str, Action]:
        """What can be done here, by the name in addresses; errors as with ``view``."""
        return {}


def each_of(order: ActionRequest, act: Callable[[str], Any], done: str, errors: tuple[type[Exception], ...]) -> Done:
    """Call ``act`` with each key; those that raise one of ``errors`` become problems, and the others are done."""
    problems, count = [], 0
    for key in order.keys:
        try:
            act(key)
            count += 1
        except errors as error:
            problems.append(str(error))
    return Done(count, f"{done} {order.keys[0]!r}" if len(order.keys) == 1 and count else f"{done} {count:,}", problems)
