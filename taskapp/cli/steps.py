"""Progress of a long command, on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import TypeVar

import click

QUIET_SECONDS = 2.0
"""Time before the first progress line, and between lines."""

Item = TypeVar("Item")


class Steps:
    """Reports the progress of a command: ``searched 1,200,000 messages``; on a terminal in one line, wiped at the end.

    Args:
        text: The line, with ``{}`` for the number of items done.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._next_at = monotonic() + QUIET_SECONDS
        self._is_terminal, self._has_printed = sys.stderr.isatty(), False

    def __call__(self, done: int) -> None:
        """Report that ``done`` items are done; prints only every ``QUIET_SECONDS``."""
        now = monotonic()
        if now >= self._next_at:
            self._next_at, self._has_printed = now + QUIET_SECONDS, True
            line = self._text.format(f"{done:,}")
            click.echo(f"\r{line}\x1b[K" if self._is_terminal else line, err=True, nl=not self._is_terminal)

    def count(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield ``items`` and report how many were consumed."""
        try:
            for number, item in enumerate(items, 1):
                yield item
                self(number)
        finally:
            self.end()

    def end(self) -> None:
        """Wipe the line."""
        if self._has_printed and self._is_terminal:
            click.echo("\r\x1b[K", err=True, nl=False)
