"""``taskapp health``: for the list of commands; ``taskapp.__main__`` answers without coming here."""

from __future__ import annotations

import sys

import click

from taskapp.probes.health import main


@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def health(*, arguments: tuple[str, ...]) -> None:
    """Say whether the nodes and beats of this machine are live, or ready: for probes of containers."""
    sys.exit(main(list(arguments)))
