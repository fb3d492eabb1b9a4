"""What watching costs: CPU of ``taskapp exporter`` and of Redis for one scrape, as full of series as it gets.

    python -m benchmarks.exporter_cost [--scrapes 100]

The exporter reads totals and one look at all queues, so a scrape costs the same whether five or five million tasks
ran since the last. What grows with tasks is paid by nodes and Redis, a few microseconds a task, see ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from itertools import product
from pathlib import Path

import psutil

from benchmarks.servers import Redis
from taskapp.broker.totals import BAR, RUN_BUCKETS_SECONDS, WAIT_BUCKETS_SECONDS

TYPES = 200
QUEUES = ("critical", "high", "default", "low")
NODES = 100
EVERY_SECONDS = 15
"""How often Prometheus scrapes, as deploy/prometheus has it."""


def fill(redis: Redis) -> None:
    """Put there what a large deployment has: totals of every label there can be, and nodes."""
