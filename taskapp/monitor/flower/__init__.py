"""Flower as we start it: on this machine only, bounded, read-only unless there is a login, with tabs of our own."""

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
from taskapp.private_files import why_not_trusted

logger = logging.getLogger(__name__)

SECRETS = frozenset({"basic_auth", "cookie_secret", "oauth2_secret"})
"""Options of Flower that should not stand on a command line."""

MAX_TASKS = 10_000
"""Tasks Flower keeps in memory; about 5 KiB each. Flower's own default is ten times that."""


def configure() -> None:
    """Set our defaults and add our tabs. Flower's command line, ``FLOWER_…`` variables and its file win."""
    # What --persistent saves has arguments of tasks in it, and Flower opens its files with no mode.
    os.umask(os.umask(0o077) | 0o077)
    logging.getLogger("flower.command").addFilter(_shows_no_settings)
    options.address = "127.0.0.1"
    options.max_tasks = MAX_TASKS
    passes = itertools.count(1)
    options.add_parse_callback(lambda: _protect(is_first_pass=next(passes) == 1))
    frame.install()


def _shows_no_settings(record: logging.LogRecord) -> bool:
    """Drop Flower's line for --debug that has all settings in it, among them the secrets of cookies and OAuth."""
    return not str(record.msg).startswith("Settings:")


def _protect(*, is_first_pass: bool) -> None:
    """Run no code of other users, and make Flower read-only where nobody has to log in.

    Raises:
        click.ClickException: Another user may have written what Flower saved: reading it runs code.
    """
    if options.conf == DEFAULT_CONFIG_FILE and (reason := _why_not_trusted(options.conf)):
        logger.warning("%s is passed over: %s; give its path with --conf=… if you trust it", options.conf, reason)
        options.conf = os.devnull
    if options.persistent:
        _check_saved()
    if is_first_pass:
        _warn_of_secrets(sys.argv)
    # Flower parses its command line, then its file, then the command line again; a file that
    # exists may still bring the login.
    if is_first_pass and Path(options.conf).is_file():
        return
    # ``auth_provider`` alone is no login: Flower asks nobody for it without ``auth``.
    if not (options.basic_auth or options.auth):
        options.read_only = True


def _warn_of_secrets(arguments: Sequence[str]) -> None:
    """Say which of Flower's ``arguments`` are secrets: all users of the machine see them."""
    for argument in arguments:
        name = argument.partition("=")[0].lstrip("-").replace("-", "_")
        if argument.startswith("-") and name in SECRETS:
            logger.warning(
                "every user of this machine sees --%s in the list of processes; set FLOWER_%s in the environment", name,
                name.upper(),
            )  # fmt: skip


def _why_not_trusted(name: str) -> str:
    path = Path(name).absolute()
    return why_not_trusted(path) if path.is_file() else ""


def _check_saved() -> None:
    for suffix in ("", ".db", ".dat", ".dir", ".bak"):
        if reason := _why_not_trusted(options.db + suffix):
            raise click.ClickException(
                f"--persistent would run code of {options.db + suffix!r}: {reason}; "
                "remove it, or give a path in a folder of your own with --db=…"
            )
