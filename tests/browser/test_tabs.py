"""Our tabs in a real browser: live, hostile, by keyboard, on a narrow screen, and with a broker that goes away."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from taskapp.engine.dead_letters import DeadLetters
from taskapp.engine.limits import Limits, Rate
from taskapp.redis.keys import Keys
from taskapp.schedules.schedule import Schedule
from taskapp.schedules.store import Schedules
from taskapp.schedules.times import parse_when
from tests.browser import live
from tests.engine.bench import Bench
from tests.integration.test_flower_tabs import bury
from tests.support import Process, RedisServer, eventually

pytestmark = pytest.mark.browser

TABS = ("overview", "queues", "schedules", "dead-letters", "nodes")
LOGIN = {"username": "ada", "password": "secret"}
WITH_LOGIN = "--basic_auth=ada:secret"
SCREENSHOTS = os.environ.get("TESTS_SCREENSHOTS")
"""A folder: then the live system runs for minutes, and what its pages look like is written there."""
KEPT = (*(f"{tab}-light" for tab in TABS), "overview-dark", "overview-narrow", "schedules-narrow")
LIVE_SECONDS = 270 if SCREENSHOTS else 4
HOSTILE = '<img src=x onerror="window.hit=1">"\'</script><script>window.hit=2</script>'


@pytest.fixture
def errors() -> list[str]:
    return []


@pytest.fixture
def logged_in(browser: Browser, errors: list[str]) -> Callable[..., Page]:
    """Open a page whose complaints land in ``errors``."""

    def open_page(width: int = 1300, height: int = 900, **options: object) -> Page:
        context = browser.new_context(viewport={"width": width, "height": height}, http_credentials=LOGIN, **options)
        page = context.new_page()
        page.on(
            "console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: (errors.append(dialog.message), dialog.dismiss()))
        return page

    return open_page


def add_schedules(store: Schedules, *names: str) -> None:
    for name in names:
        store.add(Schedule(name, "taskapp.add", parse_when("every 1h"), args=(1, 2)))


def keep(page: Page, name: str, directory: Path) -> None:
    """Write what ``page`` looks like, in few colours: a small file."""
    folder = Path(SCREENSHOTS) if SCREENSHOTS else directory
    folder.mkdir(parents=True, exist_ok=True)
    image = Image.open(BytesIO(page.screenshot())).convert("RGB").quantize(96, dither=Image.Dither.NONE)
    image.save(folder / f"{name}.png", optimize=True)


def is_drawn(page: Page) -> None:
    expect(page.locator("#tab-body")).not_to_have_attribute("aria-busy", "true")
    expect(page.locator("#tab-light")).to_have_class("status-dot status-dot-live")


# --- live ------------------------------------------------------------------------------------------


@pytest.fixture
def system(
    worker: Callable[..., Process], flower: Callable[..., str], redis_server: RedisServer, tmp_path: Path
) -> Iterator[str]:
    """Two nodes, a beat and thousands of tasks; the address of a Flower next to them."""
    for name in ("w1", "w2"):
        worker("-c", "4", name=name, TASKAPP_INCLUDE="tests.integration.shop", TASKAPP_CHILD_PROCESSES="1")
    beat = live.start_beat(redis_server, tmp_path)
    address = flower(WITH_LOGIN)
    live.run(redis_server, tmp_path, live.ADD_SCHEDULES.format(schedules=live.SCHEDULES))
    live.send_unreadable(redis_server, 60)
    load = live.LOAD.format(seconds=LIVE_SECONDS, pause_seconds=2.0 if SCREENSHOTS else 0.1)
    live.run(redis_server, tmp_path, load, LIVE_SECONDS + 60)
    live.run(redis_server, tmp_path, live.HOLD.format(held=9, release=str(tmp_path / "release")))
    yield address
    (tmp_path / "release").touch()
    beat.close()


@pytest.mark.timeout(600)
def test_each_page_of_a_live_system_in_both_themes_and_on_a_narrow_screen(
    system: str, logged_in: Callable[..., Page], errors: list[str], tmp_path: Path
) -> None:
    shown = {
        "overview": "Completed per minute", "queues": "critical", "schedules": "nightly-report",
        "dead-letters": "unreadable", "nodes": "w2@",
    }  # fmt: skip
    for width, height, scheme in ((1300, 900, "light"), (1300, 900, "dark"), (390, 844, "light")):
        page = logged_in(width, height, color_scheme=scheme)
        for tab in TABS:
            page.goto(f"{system}/{tab}")
            is_drawn(page)
            expect(page.locator("#tab-body").get_by_text(shown[tab]).first).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            if (look := f"{tab}-{scheme}" if width > 400 else f"{tab}-narrow") in KEPT:
                keep(page, look, tmp_path)
        assert page.locator("html").get_attribute("data-bs-theme") == scheme
        page.context.close()
    page = logged_in()
    page.goto(f"{system}/overview")
    is_drawn(page)
    done = page.locator("article", has_text="Done, 1 h").locator(".metric-value")
    eventually(lambda: int(done.inner_text().replace(",", "")) > 3_000)
    assert page.locator(".tab-chart svg rect.tab-line-danger").count() >= 1
    assert [page.locator(".app-nav .nav-link.active").inner_text()] == ["Overview"]
    page.goto(f"{system}/schedules?show=nightly-report")
    expect(page.get_by_text("Europe/Berlin").first).to_be_visible()
    keep(page, "schedule", tmp_path)
    page.goto(f"{system}/dead-letters")
    page.locator("tbody a").first.click()
    expect(page.get_by_role("heading", name="Arguments", exact=True)).to_be_visible()
    keep(page, "dead-letter", tmp_path)
    assert errors == []


def test_a_page_renews_itself_without_moving_what_is_on_it(
    flower: Callable[..., str], logged_in: Callable[..., Page], store: Schedules, redis_server: RedisServer
) -> None:
    add_schedules(store, *(f"job-{number:02d}" for number in range(30)))
    page = logged_in()
    page.goto(f"{flower(WITH_LOGIN)}/schedules")
    is_drawn(page)
    row = page.locator("tr[data-key='job-07']")
    row.evaluate("row => { row.isTheSame = true }")
    page.evaluate(
        "() => { window.shift = 0; new PerformanceObserver((list) => { for (const each of list.getEntries())"
        " window.shift += each.value }).observe({ type: 'layout-shift' }) }"
    )
    page.get_by_label("Name begins with").fill("jo")

    store.pause("job-07", "for a while")

    expect(row.get_by_text("paused")).to_be_visible(timeout=15_000)
    assert row.evaluate("row => row.isTheSame")
    assert page.get_by_label("Name begins with").input_value() == "jo"
    assert page.evaluate("document.activeElement.id") == "filter-name"
    assert page.evaluate("window.shift") < 0.01


# --- people ----------------------------------------------------------------------------------------


def block_by_a_key(server: RedisServer) -> None:
    """Block a task by a rate whose name and key are markup."""
    bench = Bench(server)
    limits = Limits(rates=(Rate(f"{HOSTILE}!", f"{HOSTILE}?", 1, 3_600_000, 1),))
    bench.submit("a", "b", limits=limits, queue="default")
    node = bench.node()
    for _ in range(2):
        node.take(1, ["default"])
    bench.close()


def test_names_and_errors_that_are_markup_stay_text_and_can_be_acted_on(
    flower: Callable[..., str], logged_in: Callable[..., Page], errors: list[str], store: Schedules,
    letters: DeadLetters, redis_server: RedisServer,
) -> None:  # fmt: skip
    address, page = flower(WITH_LOGIN), logged_in()
    add_schedules(store, HOSTILE)
    bury(letters, 1, error=HOSTILE)
    block_by_a_key(redis_server)

    page.goto(f"{address}/schedules")
    expect(page.locator("tbody a")).to_have_text(HOSTILE)
    page.get_by_role("button", name=f"Pause {HOSTILE}").click()
    expect(page.locator("#said-done")).to_contain_text("paused")
    assert store.get(HOSTILE).state == "paused"
    page.locator("tbody a").click()
    expect(page.locator(".tab-card-head h2").first).to_have_text(HOSTILE)
    page.goto(f"{address}/dead-letters")
    expect(page.locator("tbody td", has_text="window.hit").first).to_have_text(HOSTILE)
    page.goto(f"{address}/dead-letters?show=default/1")
    expect(page.locator("pre").first).to_have_text(HOSTILE)
    page.goto(f"{address}/queues")
    expect(page.locator("tbody :is(th, td)", has_text="window.hit")).to_have_text(
        [f"{HOSTILE}!", f"{HOSTILE}?", f"{HOSTILE}!"]
    )
    page.goto(f"{address}/schedules?name=%3Cscript%3Ewindow.hit%3D3%3C/script%3E&after=%22%3E%3Cimg%20src%3Dx%3E")
    is_drawn(page)

    assert page.evaluate("window.hit") is None
    assert errors == []


def test_everything_can_be_done_by_keyboard(
    flower: Callable[..., str], logged_in: Callable[..., Page], store: Schedules, redis_server: RedisServer
) -> None:
    add_schedules(store, "a", "b", "c")
    page = logged_in()
    page.goto(f"{flower(WITH_LOGIN)}/schedules")
    is_drawn(page)

    def tab_to(label: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if (
                page.evaluate("document.activeElement.getAttribute('aria-label') || document.activeElement.textContent")
                == label
            ):
                return
        raise AssertionError(f"Tab does not lead to {label!r}")

    tab_to("Select a")
    page.keyboard.press("Space")
    tab_to("Select c")
    page.keyboard.press("Space")
    expect(page.locator(".tab-chosen")).to_have_text("2 selected")
    page.locator("#tab").get_by_role("button", name="Pause", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#tab-dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#tab-dialog")).to_be_hidden()
    assert store.get("a").state == "active"
    page.keyboard.press("Enter")
    tab_to("Pause 2 schedules")
    page.keyboard.press("Enter")
    expect(page.locator("#said-done")).to_have_text("paused 2")
    assert [store.get(name).state for name in "abc"] == ["paused", "active", "paused"]
    page.reload()
    is_drawn(page)
    tab_to("Run now b")
    page.keyboard.press("Enter")
    tab_to("Run now")
    page.keyboard.press("Enter")
    expect(page.locator("#said-done")).to_contain_text("queued one run of 'b'")
    assert redis_server.client.llen(Keys().ready("default")) == 1


def test_a_question_asked_right_after_another_was_dismissed_is_answered(
    flower: Callable[..., str], logged_in: Callable[..., Page], store: Schedules
) -> None:
    """The browser's news that the first has closed arrives when the second is open."""
    add_schedules(store, "a", "b")
    page = logged_in()
    page.goto(f"{flower(WITH_LOGIN)}/schedules")
    is_drawn(page)
    page.get_by_label("Select all on this page").check()
    page.evaluate(
        """() => {
            const pause = document.querySelector("button[data-chosen]");
            pause.click();
            document.getElementById("tab-dialog").close();
            pause.click();
        }"""
    )
    page.get_by_role("button", name="Pause 2 schedules").click()
    expect(page.locator("#said-done")).to_have_text("paused 2")
    assert [store.get(name).state for name in "ab"] == ["paused", "paused"]


def test_what_was_chosen_stays_chosen_and_nothing_else_is_purged_while_letters_come(
    flower: Callable[..., str], logged_in: Callable[..., Page], letters: DeadLetters
) -> None:
    bury(letters, 3)
    page = logged_in()
    page.goto(f"{flower(WITH_LOGIN)}/dead-letters")
    page.get_by_label("Select default/2").check()
    bury(letters, 5)
    expect(page.locator("#tab-status")).to_have_text("Paused while rows are selected")
    page.wait_for_timeout(7_000)  # longer than a page rests between two looks
    expect(page.locator("tbody tr")).to_have_count(3)

    page.locator(".tab-many").get_by_role("button", name="Purge", exact=True).click()
    expect(page.locator("#tab-question")).to_have_text("Delete “default/2” permanently?")
    page.locator("#tab-dialog").get_by_role("button", name="Purge").click()

    expect(page.locator("#said-done")).to_have_text("purged 1 dead letter")
    expect(page.locator("tbody tr")).to_have_count(7)
    assert {letter.number for letter in letters.find()} == {1, 3, 4, 5, 6, 7, 8}


def test_all_that_fit_are_replayed_page_after_page(
    flower: Callable[..., str], logged_in: Callable[..., Page], letters: DeadLetters, redis_server: RedisServer
) -> None:
    bury(letters, 1_200, error="timeout of the bank")
    bury(letters, 10, error="something else")
    page = logged_in()
    page.goto(f"{flower(WITH_LOGIN)}/dead-letters")
    page.get_by_label("Id, task type or error contains").fill("bank")
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("link", name="Next page").click()
    page.get_by_role("button", name="Replay all matching").click()
    page.get_by_role("button", name="Replay all matching letters").click()

    expect(page.locator("#said-done")).to_contain_text("1,200 done", timeout=20_000)
    assert redis_server.client.llen(Keys().ready("default")) == 1_200
    assert letters.count() == {("default", "failed"): 10}


def test_read_only_shows_everything_and_offers_nothing(
    flower: Callable[..., str], page: Page, store: Schedules, letters: DeadLetters
) -> None:
    add_schedules(store, "nightly")
    bury(letters, 1)
    address = flower()

    for path in ("schedules", "schedules?show=nightly", "dead-letters", "dead-letters?show=default/1", "nodes"):
        page.goto(f"{address}/{path}")
        is_drawn(page)
        assert page.locator("#tab-body").locator("button[data-action], input[type=checkbox]").count() == 0


def test_below_a_prefix_pages_draw_and_act(
    flower: Callable[..., str], logged_in: Callable[..., Page], errors: list[str], store: Schedules
) -> None:
    add_schedules(store, "nightly")
    address, page = flower(WITH_LOGIN, "--url_prefix=watch"), logged_in()
    for tab in TABS:
        page.goto(f"{address}/watch/{tab}")
        is_drawn(page)
    page.get_by_role("link", name="Schedules").click()
    page.get_by_role("link", name="nightly").click()
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#said-done")).to_have_text("paused 'nightly'")
    page.get_by_role("link", name="Back to all").click()
    assert page.url == f"{address}/watch/schedules"
    assert errors == []


# --- others ----------------------------------------------------------------------------------------

ATTACK = """<!doctype html><title>evil</title>
<form id=f method=post enctype=text/plain action="{target}">
<input name='{{"keys":["nightly"],"x":"' value='"}}'></form>
<script>
fetch("{target}", {{method: "POST", mode: "no-cors", credentials: "include",
  body: '{{"keys":["nightly"]}}'}})
  .then(() => fetch("{target}", {{method: "POST", credentials: "include", body: '{{"keys":["nightly"]}}',
    headers: {{"Content-Type": "application/json"}}}}))
  .catch(() => 0).then(() => document.getElementById("f").submit());
</script>"""


def test_a_page_of_another_site_changes_nothing(
    flower: Callable[..., str], logged_in: Callable[..., Page], store: Schedules
) -> None:
    add_schedules(store, "nightly")
    address, page = flower(WITH_LOGIN), logged_in()
    target = f"{address}/schedules/actions/pause"

    class Evil(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(ATTACK.format(target=target).encode())

        def log_message(self, *_: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Evil)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    statuses: list[int] = []
    page.on("response", lambda answer: statuses.append(answer.status) if answer.url == target else None)
    page.goto(f"{address}/schedules")
    is_drawn(page)
    page.goto(f"http://localhost:{server.server_port}/")
    page.wait_for_url(target)
    server.shutdown()

    assert statuses
    assert set(statuses) <= {401, 403, 204}
    assert store.get("nightly").state == "active"


def test_no_other_site_can_frame_a_page(flower: Callable[..., str], logged_in: Callable[..., Page]) -> None:
    address, page = flower(WITH_LOGIN), logged_in()
    page.goto(f"{address}/schedules")
    page.evaluate(
        "address => { const frame = document.createElement('iframe'); frame.src = address;"
        " document.body.append(frame) }",
        f"{address}/nodes",
    )
    eventually(lambda: len(page.frames) == 2)
    page.wait_for_timeout(500)
    assert page.frames[1].locator("#tab-body").count() == 0


def test_a_broker_that_goes_away_is_said_and_its_return_is_seen(
    flower: Callable[..., str], logged_in: Callable[..., Page], store: Schedules, redis_server: RedisServer
) -> None:
    add_schedules(store, "nightly")
    page = logged_in()
    page.goto(f"{flower(WITH_LOGIN)}/schedules")
    is_drawn(page)

    redis_server.kill()
    expect(page.locator("#said-away")).to_contain_text("trying again", timeout=20_000)
    expect(page.get_by_role("link", name="nightly")).to_be_visible()
    redis_server.start()
    expect(page.locator("#said-away")).to_have_count(0, timeout=20_000)
    is_drawn(page)


def test_empty_pages_say_what_to_do(flower: Callable[..., str], logged_in: Callable[..., Page]) -> None:
    address, page = flower(WITH_LOGIN), logged_in()
    for tab, text in (
        ("overview", "Start one with: celery -A taskapp worker"), ("nodes", "Start one with: celery -A taskapp worker"),
        ("schedules", "taskapp schedules add"), ("dead-letters", "No dead letters."), ("queues", "critical"),
    ):  # fmt: skip
        page.goto(f"{address}/{tab}")
        expect(page.locator("#tab-body").get_by_text(text).first).to_be_visible()
