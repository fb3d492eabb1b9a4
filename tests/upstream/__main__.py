"""``python -m tests.upstream celery [--app stock] [TEST …]``: run their tests, print what failed and the figures."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit

from tests.conftest import server_binary
from tests.support import RedisServer
from tests.upstream.celery_suite import CELERY
from tests.upstream.other_suites import FLOWER, KOMBU_RABBITMQ, KOMBU_REDIS
from tests.upstream.suites import TIMES, run

SUITES = {"celery": CELERY, "kombu": KOMBU_REDIS, "kombu-rabbitmq": KOMBU_RABBITMQ, "flower": FLOWER}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.upstream")
    parser.add_argument("suite", choices=SUITES)
    parser.add_argument("tests", nargs="*")
    parser.add_argument("--app", choices=("taskapp", "stock"), default="taskapp")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--times", type=int, default=TIMES)
    given = parser.parse_intermixed_args()
    directory = Path(mkdtemp(prefix="upstream-"))
    server = RedisServer(str(server_binary()), directory)
    try:
        env = {
            "TEST_BROKER": server.url,
            "TEST_BACKEND": server.url,
            "REDIS_HOST": "127.0.0.1",
            "REDIS_6379_TCP": str(server.port),
            "TASKAPP_BROKER_URL": server.url,
            "REDIS_PORT": str(urlsplit(server.url).port),
        }
        done = run(SUITES[given.suite], directory, *given.tests, app=given.app, times=given.times, **env)
    finally:
        server.close()
    for test, text in done.failed().items():
        sys.stdout.write(f"{test}\n{text[-1500:]}\n\n")
    if given.json:
        given.json.write_text(json.dumps(done.outcomes, indent=1))
    sys.stdout.write(f"{done.counts()} in {directory}\n")
    return bool(done.failed())


if __name__ == "__main__":
    sys.exit(main())
