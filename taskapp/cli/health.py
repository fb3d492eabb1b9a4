"""``taskapp health``: only for the list of commands; ``taskapp.__main__`` runs it without importing this."""

from __future__ import annotations

import sys

import click

from taskapp.probes.health import main


@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def health(*, arguments: tuple[str, ...]) -> None:
    """Report whether this machine's nodes and beats are live or ready, for container probes."""
    sys.exit(main(list(arguments)))
