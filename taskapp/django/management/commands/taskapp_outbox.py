"""``manage.py taskapp_outbox``: queues what transactions of this project have left in the outbox."""

from __future__ import annotations

import logging
import signal
from typing import Any

from celery.app import app_or_default
from django.core.management.base import BaseCommand, CommandParser
from django.db import DEFAULT_DB_ALIAS

from taskapp.django.outbox_store import DjangoStore
from taskapp.outbox.relay import Relay


class Command(BaseCommand):
    """Relays the outbox of one database until stopped."""

    help = "Queue the tasks that committed transactions have left in the outbox, until stopped."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        parser.add_argument("--database", default=DEFAULT_DB_ALIAS, help="Database of the outbox (default: default).")
        parser.add_argument("--once", action="store_true", help="Queue what waits now, then exit.")

    def handle(self, *_: Any, database: str, once: bool, **__: Any) -> None:
        """Run the relay."""
        relay = Relay(app_or_default(), DjangoStore(database))
        if once:
            self.stdout.write(f"queued {relay.drain()} tasks")
            return
        if not logging.getLogger().handlers:
            logging.basicConfig(level=logging.WARNING)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: relay.stop())
        self.stdout.write(f"queueing tasks from the outbox of database {database!r}")
        relay.run()
