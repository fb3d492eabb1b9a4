"""A Django project on nodes, with PostgreSQL or SQLite: ``django_project``, set up as Celery documents it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import psycopg

from tests.integration.databases import PASSWORD, Database
from tests.support import Process, RedisServer, clean_environment, run_python, start_worker

PROJECT = Path(__file__).parent / "django_project"
SETUP = """
import django, json, proj, sys, time
django.setup()
from django.db import connection, transaction
from shop import tasks
"""


class Project:
    """The project, its nodes and its web processes."""

    def __init__(self, redis: RedisServer, database: Database | None, directory: Path) -> None:
        self.redis, self.directory = redis, directory
        self.env = {"PROJ_BROKER": redis.url, "DJANGO_SETTINGS_MODULE": "proj.settings"}
        self._started: list[Process] = []
        self.database = database
        if database is not None:
            self.env |= {"PROJ_DB_PORT": str(database.port), "PROJ_DB_PASSWORD": PASSWORD}

    def node(self, *options: str, **env: str) -> Process:
        node = start_worker(
            self.directory, self.redis.url, *options, app="proj", PYTHONPATH=str(PROJECT), **self.env, **env
        )
        self._started.append(node)
        return node

    def run(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        variables = clean_environment(
            PYTHONPATH=f"{PROJECT}:{Path.cwd()}", TASKAPP_DATA_DIR=str(self.directory / "data"), **self.env, **env
        )
        return run_python(*argv, env=variables, cwd=self.directory, timeout=90)

    def say(self, code: str, **env: str) -> Any:
        """Run code in a web process; return what it leaves in ``said``."""
        done = self.run("-c", f"{SETUP}{code}\nprint('\\n' + json.dumps(said))", **env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    def open_connections(self) -> int:
        assert self.database is not None
        with psycopg.connect(self.database.url) as connection:  # type: ignore[attr-defined]  # each kind has one
            found = connection.execute("select count(*) from pg_stat_activity where application_name = 'shop'")
            return int(found.fetchone()[0])  # type: ignore[index]  # one row

    def close(self) -> None:
        for process in self._started:
            process.close()
