"""Flower as we start it: on this machine only, bounded, read-only unless there is a login, with tabs of our own."""

from __future__ import annotations

import itertools
import logging
import os
from pathlib import Path

import flower.options  # noqa: F401 - defines the options
from tornado.options import options

from taskapp.monitor.flower import frame

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
    """Make Flower read-only where nobody has to log in."""
    # Flower parses its command line, then its file, then the command line again; a file that
    # exists may still bring the login.
    if is_first_pass and Path(options.conf).is_file():
        return
    # ``auth_provider`` alone is no login: Flower asks nobody for it without ``auth``.
    if not (options.basic_auth or options.auth):
        options.read_only = True
