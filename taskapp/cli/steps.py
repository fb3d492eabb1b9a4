"""How far a long command is, told on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import TypeVar

import click

QUIET_SECONDS = 2.0
"""A command that takes no longer says nothing; one that does tells as often how far it is."""

Item = TypeVar("Item")


class Steps:
    """Tells how far a command is: ``looked at 1,200,000 messages``; on a terminal in one line, wiped at the end."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._next_at = monotonic() + QUIET_SECONDS
        self._is_terminal, self._has_told = sys.stderr.isatty(), False

    def __call__(self, done: int) -> None:
        """Take note that so much is done."""
        now = monotonic()
        if now >= self._next_at:
            self._next_at, self._has_told = now + QUIET_SECONDS, True
            line = self._text.format(f"{done:,}")
            click.echo(f"\r{line}\x1b[K" if self._is_terminal else line, err=True, nl=not self._is_terminal)

    def count(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield ``items``, and tell how many there were."""
        try:
            for number, item in enumerate(items, 1):
                yield item
                self(number)
        finally:
            self.end()

    def end(self) -> None:
        """Wipe the line."""
        if self._has_told and self._is_terminal:
            click.echo("\r\x1b[K", err=True, nl=False)
