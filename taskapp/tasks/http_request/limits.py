"""Limits of ``taskapp.http_request``."""

from __future__ import annotations

MAX_TIMEOUT_SECONDS = 300
"""Maximum deadline of one run; the task's time limits are above it."""
MAX_RESPONSE_BYTES = 16 * 1_048_576
