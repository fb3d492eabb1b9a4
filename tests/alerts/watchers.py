"""Prometheus, Alertmanager and who they tell: the files of ``deploy`` with all times divided."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tests.alerts.shortened import shortened
from tests.support import Process, clean_environment, eventually, free_port

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
FACTOR = 30
"""How much faster everything goes: 5 minutes are 10 seconds, and Prometheus looks twice in a second in place of
four times in a minute."""


class Told(NamedTuple):
    """One alert in one message to the webhook."""

    status: str
    """``firing`` or ``resolved``."""
    receiver: str
    labels: dict[str, str]
    annotations: dict[str, str]


class Webhook:
    """An HTTP server that keeps what it receives."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        told = self.told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                told.extend(
                    Told(alert["status"], message["receiver"], alert["labels"], alert["annotations"])
                    for alert in message["alerts"]
                )
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/?a=1&b=2"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class MailSink(Process):
    """The mail server of the demo."""

    def __init__(self, directory: Path) -> None:
        self.mails = directory / "mails"
        argv = [sys.executable, "-m", "taskapp.demo.mail_sink", "--port", "0", "--directory", str(self.mails)]
        super().__init__(argv, directory / "mail.log", clean_environment(PYTHONPATH=str(ROOT)), directory)
        self.port = eventually(lambda: re.search(r"listening on 127.0.0.1:(\d+)", self.output())).group(1)

    def texts(self) -> list[str]:
        return [path.read_text(errors="replace") for path in sorted(self.mails.glob("*.eml"))]


class Alertmanager(Process):
    """Debian's, with our configuration as ``render`` prints it."""

    def __init__(self, directory: Path, **addresses: str) -> None:
        done = subprocess.run(
            [DEPLOY / "alertmanager/render"], env={"PATH": os.environ["PATH"], **addresses},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        config = directory / "alertmanager.yml"
        config.write_text(shortened(done.stdout, FACTOR))
        self.port = free_port()
        argv = [
            "prometheus-alertmanager", f"--config.file={config}", f"--storage.path={directory / 'alertmanager'}",
            f"--web.listen-address=127.0.0.1:{self.port}", "--cluster.listen-address=", "--log.level=warn",
        ]  # fmt: skip
        super().__init__(argv, directory / "alertmanager.log", clean_environment(), directory)
        eventually(lambda: answers(f"http://127.0.0.1:{self.port}/-/ready"))

    def silenced_by_another(self) -> list[dict[str, str]]:
        """The labels of the alerts that are inhibited now."""
        url = f"http://127.0.0.1:{self.port}/api/v2/alerts?active=true&silenced=false&inhibited=true"
        return [alert["labels"] for alert in fetched(url) if alert["status"]["inhibitedBy"]]


class Prometheus(Process):
    """Debian's, with our rules; scrapes ``targets``, by job."""

    def __init__(self, directory: Path, targets: Mapping[str, int], alertmanager_port: int) -> None:
        for path in (DEPLOY / "prometheus/rules").glob("*.yml"):
            (directory / path.name).write_text(shortened(path.read_text(), FACTOR))
        config = yaml.safe_load(shortened((DEPLOY / "prometheus/prometheus.yml").read_text(), FACTOR))
        config["rule_files"] = [str(directory / "objectives.yml"), str(directory / "taskapp.yml")]
        config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{alertmanager_port}"]
        config["scrape_configs"] = [
            # A machine with much to do may answer late.
            {"job_name": job, "scrape_interval": "1s", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}
            for job, port in targets.items()
        ]
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.port = free_port()
        argv = [
            "prometheus", f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'prometheus'}", f"--web.listen-address=127.0.0.1:{self.port}",
            "--rules.alert.resend-delay=1s", "--log.level=warn",
        ]  # fmt: skip
        super().__init__(argv, directory / "prometheus.log", clean_environment(), directory)
        eventually(lambda: answers(f"http://127.0.0.1:{self.port}/-/ready"))

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return what an expression gives now: ``{"metric": …, "value": …}``; fails where Prometheus says error."""
        parameters = urllib.parse.urlencode({"query": expression})
        answer = fetched(f"http://127.0.0.1:{self.port}/api/v1/query?{parameters}")
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])


def fetched(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as response:
        return json.load(response)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def missing_programs() -> list[str]:
    return [name for name in ("prometheus", "prometheus-alertmanager") if shutil.which(name) is None]
