"""What docker-compose.yml runs, as far as it can be run without containers."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
import redis
import yaml

from tests.support import Process, answers, eventually, free_port

COMPOSE = yaml.safe_load((Path(__file__).parents[2] / "docker-compose.yml").read_text())
PASSWORD = "0123456789abcdef"


def test_redis_has_its_password_and_no_list_of_processes_shows_it(tmp_path: Path) -> None:
    port = free_port()
    entrypoint = tmp_path / "docker-entrypoint.sh"  # of the image: it starts what it is given as another user
    # Before the server itself, which hides its arguments, there are shells with the same ones.
    entrypoint.write_text(f'#!/bin/sh\necho "$@" >shown\nexec "$@" --port {port} --bind 127.0.0.1\n')
    entrypoint.chmod(0o755)
    argv = [part.replace("$$", "$") for part in COMPOSE["services"]["redis"]["command"]]
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "REDISCLI_AUTH": PASSWORD}
    server = Process(argv, tmp_path / "redis.log", environment, tmp_path)
    client = redis.Redis(port=port, password=PASSWORD, decode_responses=True)
    try:
        eventually(lambda: answers(client) or server.returncode is not None)
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
        settings = [client.config_get(name)[name] for name in ("appendonly", "appendfsync", "maxmemory-policy")]
        shown = " ".join(psutil.Process(server.pid).cmdline())
    finally:
        server.close()

    assert settings == ["yes", "everysec", "noeviction"]
    assert PASSWORD not in " ".join(argv) + shown + (tmp_path / "shown").read_text()
