"""Every page of Flower in a real browser, against a running worker."""

from __future__ import annotations

import sys
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.support import Process, RedisServer, clean_environment, eventually

pytestmark = pytest.mark.browser


def submit(redis_server: RedisServer, tmp_path: Path, code: str) -> None:
    """Run ``code`` as a web process would: the browser's driver keeps a loop in this one."""
    environment = clean_environment(
        TASKAPP_BROKER_URL=redis_server.url, TASKAPP_DATA_DIR=str(tmp_path), PYTHONPATH=str(Path.cwd())
    )
    process = Process([sys.executable, "-c", code], tmp_path / "web.log", environment)
    assert process.wait(40) == 0, process.output()


def test_every_page_shows_what_is_true(
    page: Page, flower: Callable[..., str], worker: Callable[..., Process], redis_server: RedisServer, tmp_path: Path
) -> None:
    errors: list[str] = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    node = worker(TASKAPP_INCLUDE="tests.integration.shop")
    address = flower()
    page.goto(f"{address}/workers")
    page.get_by_text("w1@").first.wait_for()
    submit(
        redis_server, tmp_path,
        "from taskapp.tasks import add\n"
        "from tests.integration import shop\n"
        "assert [add.delay(n, n).get(timeout=20) for n in range(5)] == [0, 2, 4, 6, 8]\n"
        "try: shop.unsteady.apply_async((9,), retries=2).get(timeout=20)\n"
        "except ValueError: pass\n",
    )  # fmt: skip

    page.goto(f"{address}/tasks")
    page.get_by_text("taskapp.add").first.wait_for()
    page.get_by_text("FAILURE").first.wait_for()
    page.locator("a[href*='/task/']").first.click()
    page.get_by_text("Task details", exact=False).first.wait_for()

    page.goto(f"{address}/workers")
    page.locator("a[href*='/worker/']").first.click()
    for tab in ("Pool", "Broker", "Queues", "Tasks", "Limits", "Config", "System", "Other"):
        page.locator(".nav-tabs").get_by_text(tab, exact=True).click()
    page.locator(".nav-tabs").get_by_text("Queues", exact=True).click()
    for queue in ("critical", "high", "default", "low"):
        assert page.get_by_role("cell", name=queue, exact=True).first.is_visible()

    node.close()
    submit(
        redis_server, tmp_path,
        "from taskapp.tasks import add\n"
        "for priority in range(10): add.apply_async((1, 1), queue='low', priority=priority)\n",
    )  # fmt: skip
    page.goto(f"{address}/broker")
    assert page.locator("tr", has_text="low").locator("td").nth(1).inner_text() == "10"
    assert errors == []


def post(url: str, login: str | None = None) -> int:
    request = urllib.request.Request(url, data=b"", method="POST")
    if login:
        request.add_header("Authorization", "Basic " + b64encode(login.encode()).decode())
    try:
        return int(urllib.request.urlopen(request).status)
    except urllib.error.HTTPError as error:
        return error.code


def test_without_a_login_nothing_can_be_changed_and_with_one_it_can(
    flower: Callable[..., str], worker: Callable[..., Process], tmp_path: Path
) -> None:
    node = worker()
    host = node.output().split("w1@")[1].split()[0]
    open_to_all, with_login = flower(), flower("--basic_auth=ada:secret")
    (tmp_path / "flowerconfig.py").write_text("basic_auth = ['ada:secret']\n")
    with_file = flower()
    (tmp_path / "flowerconfig.py").unlink()
    grow = f"/api/worker/pool/grow/w1@{host}?n=1"

    assert post(open_to_all + grow) in (401, 403)
    assert post(with_login + grow) == 401
    for address in (with_login, with_file):
        eventually(lambda a=address: post(a + grow, "ada:secret") == 200)
