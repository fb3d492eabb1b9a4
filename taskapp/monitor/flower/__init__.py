"""Configures Flower: local address only, bounded memory, read-only without a login, and taskapp's tabs."""

from __future__ import annotations

import itertools
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from flower.options import DEFAULT_CONFIG_FILE  # its module defines the options, too
from tornado.options import options

from taskapp.monitor.flower import frame
from taskapp.monitor.flower.command_line import forget_service_links
from taskapp.private_files import why_not_trusted

logger = logging.getLogger(__name__)

SECRETS = frozenset({"basic_auth", "cookie_secret", "oauth2_secret"})
"""Options of Flower that should not be given on a command line."""

MAX_TASKS = 10_000
"""Tasks Flower keeps in memory, about 5 KiB each. Flower's default is ten times as many."""


def configure() -> None:
    """Set our defaults, which Flower's command line, ``FLOWER_…`` variables and config file override; add our tabs."""
    # --persistent saves task arguments, and Flower opens those files without a mode.
    os.umask(os.umask(0o077) | 0o077)
    logging.getLogger("flower.command").addFilter(_shows_no_settings)
    forget_service_links()
    options.address = "127.0.0.1"
    options.max_tasks = MAX_TASKS
    passes = itertools.count(1)
    options.add_parse_callback(lambda: _protect(is_first_pass=next(passes) == 1))
    frame.install()


def _shows_no_settings(record: logging.LogRecord) -> bool:
    """Drop the line in which Flower's --debug logs all settings, including the cookie and OAuth secrets."""
    return not str(record.msg).startswith("Settings:")


def _protect(*, is_first_pass: bool) -> None:
    """Refuse files that could run other users' code, and make Flower read-only if it has no login.

    Raises:
        click.ClickException: Another user may have written Flower's saved state, and loading it runs code.
    """
    if options.conf == DEFAULT_CONFIG_FILE and (reason := _why_not_trusted(options.conf)):
        logger.warning("ignoring %s: %s; pass its path with --conf=… if you trust it", options.conf, reason)
        options.conf = os.devnull
    if options.persistent:
        _check_saved()
    if is_first_pass:
        _warn_about_secrets(sys.argv)
    # Flower parses its command line, then its config file, then the command line again. If the file
    # exists, it may still set the login.
    if is_first_pass and Path(options.conf).is_file():
        return
    # ``auth_provider`` alone is not a login: without ``auth``, Flower does not ask for one.
    if not (options.basic_auth or options.auth):
        options.read_only = True


def _warn_about_secrets(arguments: Sequence[str]) -> None:
    """Warn about secrets in Flower's ``arguments``, which every user of the machine can see."""
    for argument in arguments:
        name = argument.partition("=")[0].lstrip("-").replace("-", "_")
        if argument.startswith("-") and name in SECRETS:
            logger.warning(
                "every user of this machine can see --%s in the process list; set FLOWER_%s instead", name,
                name.upper(),
            )  # fmt: skip


def _why_not_trusted(name: str) -> str:
    path = Path(name).absolute()
    return why_not_trusted(path) if path.is_file() else ""


def _check_saved() -> None:
    for suffix in ("", ".db", ".dat", ".dir", ".bak"):
        if reason := _why_not_trusted(options.db + suffix):
            raise click.ClickException(
                f"--persistent would run code from {options.db + suffix!r}: {reason}; "
                "remove the file, or pass a path in your own directory with --db=…"
            )
