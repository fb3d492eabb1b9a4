"""Checks Flower's command line: Flower itself ignores unknown options and fails with tracebacks."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterable
from pathlib import Path

import click
from tornado.options import Error, options

from taskapp.errors import did_you_mean

ADDRESS_PROBLEMS = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})
HIGHEST_PORT = 65_535
PREFIX = "FLOWER_"
FILES = frozenset({"conf", "certfile", "keyfile", "ca_certs", "ca-certs"})
_LINK = re.compile(r"(tcp|udp|sctp)://")
"""Start of a service link that Kubernetes sets for a service named ``flower``; it is not an option's value."""


def forget_service_links() -> None:
    """Remove ``FLOWER_PORT=tcp://…``, which Kubernetes sets for a service named ``flower``, from the environment."""
    if _LINK.match(os.environ.get("FLOWER_PORT", "")):
        del os.environ["FLOWER_PORT"]


def check_options(arguments: Iterable[str]) -> None:
    """Check that Flower knows ``arguments`` and can parse their values, and those of ``FLOWER_`` variables.

    Raises:
        click.UsageError: An option is unknown or its value invalid; names the option and the remedy.
    """
    known = {name.replace("_", "-") for name in options}
    for argument in arguments:
        name, is_joined, value = argument.lstrip("-").partition("=")
        if not argument.startswith("-"):
            raise click.UsageError(f"flower takes no argument {argument!r}; write options as --port=5555")
        if name.replace("_", "-") not in known:
            hint = "; did you mean '--logging'?" if name in ("l", "loglevel") else did_you_mean(f"--{name}", _typed())
            raise click.UsageError(f"flower has no option {argument.partition('=')[0]!r}{hint}")
        if is_joined:
            _check_value(f"--{name}", name, value)
        elif not isinstance(options[name], bool) and name != "help":
            raise click.UsageError(f"option --{name} needs a value; write --{name}=VALUE")
    for variable, value in os.environ.items():
        name = variable.removeprefix(PREFIX).lower()
        if variable.startswith(PREFIX) and name in options:
            _check_value(variable, name, value)


def _typed() -> list[str]:
    return [f"--{name}" for name in options]


def _check_value(source: str, name: str, value: str) -> None:
    if name in FILES and value and not Path(value).is_file():
        raise click.UsageError(f"{source} cannot be {value!r}: no such file")
    default = options[name]
    if isinstance(default, bool) or not isinstance(default, int | float):
        return
    try:
        number = type(default)(value)
    except ValueError:
        raise click.UsageError(f"{source} cannot be {value!r}: it is not a number") from None
    if name == "port" and not 0 <= number <= HIGHEST_PORT:
        raise click.UsageError(f"{source} cannot be {value!r}: a port must be a number from 0 to {HIGHEST_PORT}")


def why_not_started(error: Exception) -> str:
    """Return why Flower did not start if an address, file or option is at fault; otherwise empty."""
    if isinstance(error, Error):
        return f"{error}; see: celery -A taskapp flower --help"
    if not isinstance(error, OSError):
        return ""
    reason = error.strerror or str(error)
    if error.errno in ADDRESS_PROBLEMS or isinstance(error, socket.gaierror) or options.unix_socket:
        if options.unix_socket:
            return f"Flower cannot listen on {options.unix_socket}: {reason}; choose another --unix_socket"
        return f"Flower cannot listen on {options.address}:{options.port}: {reason}; choose another --port or --address"
    if error.filename:
        return f"Flower cannot use {os.fsdecode(error.filename)!r}: {reason}; give another path"
    return ""
