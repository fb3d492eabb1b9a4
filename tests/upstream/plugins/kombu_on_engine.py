"""A pytest plugin for kombu's integration tests: ``kombu.Connection`` is the one of a taskapp app."""

from __future__ import annotations

import os

import kombu

if os.environ["UPSTREAM_APP"] == "taskapp":
    from taskapp.transport.transport import Connection

    kombu.Connection = Connection
