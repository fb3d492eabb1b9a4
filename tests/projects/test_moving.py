"""A Django project with thirty task types moves to taskapp by the commands of docs/moving.md, and back.

The commands are those of the page's code blocks, in their order.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.projects.running import WAIT, Project
from tests.support import Process, RedisServer, eventually

pytestmark = [pytest.mark.timeout(400), pytest.mark.slow]
PAGE = Path("docs/moving.md")
PROLOGUE = """
import os, time
os.environ["DJANGO_SETTINGS_MODULE"] = "proj.settings"
import django
django.setup()
from accounts.models import Entry
from accounts.tasks import *
from catalog.tasks import *
from orders.tasks import *
from reports.tasks import *
from proj import celery_app as app
app.loader.import_default_modules()

def ended(result):
    result.get(timeout=60, propagate=False)
    error = result.result
    return [result.state, [type(error).__name__, *map(str, error.args)] if isinstance(error, BaseException) else error]

def entries(task_id, wait=False):
    until = time.monotonic() + 60
    while wait and time.monotonic() < until and not Entry.objects.filter(task_id=task_id).exists():
        time.sleep(0.05)
    return list(Entry.objects.filter(task_id=task_id).order_by("pk").values_list("text", flat=True))
"""
EVERY_TYPE = """
sent = {
    "welcome": send_welcome.delay("ada"), "receipt": send_receipt.delay("ada", failures=2),
    "invoice": send_invoice.delay("ada"), "broken": send_broken.delay("ada"), "limited": send_limited.delay("ada"),
    "delete": app.send_task("accounts.delete-user", ("ada",), {"reason": "rude"}), "export": export.delay("ada"),
    "reindex": reindex.delay(7), "price": price.delay(5), "total": total.delay([1, 2]),
    "reprice": reprice.delay([1, 2, 3]), "import": slow_import.delay(20), "who": who_am_i.apply_async(queue="reports"),
    "place": place.apply_async((1,), countdown=1), "checkout": checkout(4).apply_async(),
    "refuse": refuse.apply_async((6,), link_error=note_failure.s()), "carts": clean_carts.delay(),
    "nightly": nightly.delay("sales"), "report": report("all.txt", 4).apply_async(), "big": big.delay("x" * 5000),
    "merge": merge.delay([{"rows": 1}], "one.txt"), "expired": place.apply_async((9,), countdown=2, expires=1),
}
debug, digest, ignored, rejected = app.tasks["proj.celery.debug_task"].delay(), send_digest.delay(), ignore.delay(), \
    reject.delay()
write_and_submit(11)
fanned = [app.AsyncResult(each).get(timeout=60) for each in fan_out.delay(3).get(timeout=60)]
said = {name: ended(result) for name, result in sent.items()}
said |= {"fan out": fanned, "digest": entries(digest.id, wait=True), "rejected": entries(rejected.id, wait=True),
         "broken entries": entries(sent["broken"].id, wait=True),
         "limited entries": entries(sent["limited"].id, wait=True),
         "refused": len(entries(sent["refuse"].id, wait=True)), "ignored": [ignored.state, ignored.info],
         "states": [debug.state, rejected.state]}
"""
WAITING = """
ids = {"before": send_welcome.delay("early").id}
app.AsyncResult(ids["before"]).get(timeout=60)
ids |= {f"running {n}": export.delay(f"r{n}", seconds=8).id for n in range(2)}
time.sleep(2)
ids |= {f"delayed {n}": place.apply_async((n,), countdown=20).id for n in range(3)}
time.sleep(2)
ids |= {f"ready {n}": place.delay(200 + n).id for n in range(20)}
ids |= {"chain": checkout(7).apply_async().id, "chord": report("moved.txt", 3).apply_async().id,
        "retried": send_invoice.delay("eve").id}
said = ids
"""
SETTLED = "said = {name: [*ended(app.AsyncResult(each)), len(entries(each))] for name, each in IDS.items()}"


class Store(Project):
    """The project, and what its users run it with."""

    def say(self, code: str) -> dict[str, object]:
        said: dict[str, object] = super().say(PROLOGUE + code)  # type: ignore[assignment]
        return said

    def play(self, commands: list[str]) -> None:
        """Run commands of the page in their order; those that run on are left running."""
        for command in commands:
            if command.startswith("pip install"):
                continue  # as in this environment
            if command.startswith("systemctl stop"):
                self.stop([unit.removeprefix("celery") or "worker" for unit in command.split()[2:]])
            elif match := re.match(r"celery -A proj (worker|beat)\b", command):
                process = self.start(sys.executable, "-m", *command.split(), name=f"{match[1]}-{len(self._started)}")
                self.running[match[1]] = process
                if match[1] == "worker":
                    eventually(lambda process=process: " ready." in process.output(), WAIT)
            elif command == "taskapp -A proj top --once":
                eventually(self.is_empty, WAIT, 0.5)
            else:
                program = re.sub(r"^(taskapp|celery) ", rf"{sys.executable} -m \1 ", command)
                done = self.run("sh", "-c", program)
                assert not done.returncode, (command, done.stdout, done.stderr)

    def stop(self, kinds: list[str]) -> None:
        for kind in kinds:
            if self.are_killed:
                self.stopping[kind].kill()
            else:
                assert self.stopping[kind].terminate(WAIT) == 0

    def is_empty(self) -> bool:
        done = self.run(sys.executable, "-m", "taskapp", "-A", "proj", "top", "--json")
        assert not done.returncode, done.stderr
        seen = json.loads(done.stdout)
        waiting = [each[place] for each in seen["queues"] for place in ("ready", "delayed")]
        return not any(waiting) and not any(node["held"] for node in seen["nodes"])

    are_killed = False
    """Whether what the page stops is killed instead."""
    running: dict[str, Process]
    stopping: dict[str, Process]


def commands(title: str) -> list[str]:
    """Return the commands of a section of the page."""
    section = re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)
    [text] = [each for each in section if each.startswith(title)]
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [line.strip() for block in blocks for line in block.splitlines()]


@pytest.fixture
def store(redis_server: RedisServer, tmp_path: Path) -> Iterator[Store]:
    url = redis_server.url
    store = Store("store", "stock", tmp_path, app="proj", BROKER_URL=url, RESULT_URL=f"{url[:-1]}1")
    store.running, store.stopping = {}, {}
    done = store.run(sys.executable, "manage.py", "migrate", "--run-syncdb", "-v", "0")
    assert not done.returncode, done.stderr
    yield store
    store.close()


@pytest.mark.parametrize("way", ["stopped", "killed"])
def test_there_and_back(store: Store, way: str) -> None:
    """Every type ends as with stock Celery, and every task that waits when the move begins ends once."""
    options = ["-l", "INFO", "-Q", "celery,emails,reports", "-c", "2"]
    store.running = {
        "worker": store.start(sys.executable, "-m", "celery", "-A", "proj", "worker", *options, name="stock-worker"),
        "beat": store.start(sys.executable, "-m", "celery", "-A", "proj", "beat", name="stock-beat"),
    }
    with_stock = store.say(EVERY_TYPE)
    assert eager_tests(store) == "OK"

    ids = store.say(WAITING)
    store.stopping = dict(store.running)
    store.are_killed = way == "killed"
    store.play(commands("In ten minutes"))
    with_taskapp = store.say(EVERY_TYPE)
    assert with_taskapp == with_stock
    assert eager_tests(store) == "OK"
    settled = store.say(f"IDS = {ids!r}\n{SETTLED}")
    assert {name: (state, count) for name, (state, _, count) in settled.items()} == {
        name: ("SUCCESS", 0 if name == "chord" else 1) for name in ids
    }
    assert (store.folder / "moved.txt").read_text() == "30"
    assert store.say("said = {'runs': Entry.objects.filter(name='orders.tasks.clean_carts').count()}")["runs"] > 5

    ids = store.say(WAITING.replace("moved.txt", "back.txt"))
    store.stopping = dict(store.running)
    store.play(commands("Back"))
    assert store.say(f"IDS = {ids!r}\n{SETTLED}").keys() == ids.keys()
    assert (store.folder / "back.txt").read_text() == "30"
    assert store.say(EVERY_TYPE) == with_stock


def eager_tests(store: Store) -> str:
    """Run the project's own tests; return what the last line but one says."""
    done = store.run("sh", "-c", f"EAGER=1 {sys.executable} manage.py test")
    return done.stderr.splitlines()[-2]
