"""Celery's examples, with the one line changed, each with a real worker."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration import rabbitmq
from tests.support import Process, RedisServer, clean_environment, eventually
from tests.upstream.sources import NoSource, source
from tests.upstream.suites import on_taskapp

pytestmark = pytest.mark.timeout(600)
WAIT = 120.0
CELERY = (sys.executable, "-m", "celery")


class Example:
    """One of the examples in a folder of its own; variables name its servers, which Celery reads first."""

    def __init__(self, folder: Path, broker_url: str, result_url: str) -> None:
        self.folder, self._started = folder, list[Process]()
        self.env = clean_environment(
            CELERY_BROKER_URL=broker_url, CELERY_RESULT_BACKEND=result_url, TASKAPP_DATA_DIR=str(folder / "data"),
            PYTHONPATH=str(folder),
        )  # fmt: skip

    def start(self, *argv: str, name: str = "worker") -> Process:
        process = Process(list(argv), self.folder / f"{name}.log", self.env, cwd=self.folder)
        self._started.append(process)
        return process

    def worker(self, *argv: str) -> Process:
        """Start a worker; return when it takes tasks."""
        worker = self.start(*argv, "worker", "-l", "INFO", "-c", "2", "--without-mingle")
        eventually(lambda: " ready." in worker.output() or worker.returncode is not None, WAIT)
        assert worker.returncode is None, worker.output()
        return worker

    def run(self, code: str, *argv: str, text: str = "") -> str:
        """Run ``code``, or a command, as the user of the example does; return what it prints."""
        command = argv or (sys.executable, "-c", code)
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.env,
            input=text,
            capture_output=True,
            text=True,
            timeout=WAIT,
            check=False,
        )
        assert not done.returncode, done.stdout + done.stderr
        return done.stdout.strip()

    def close(self) -> None:
        for process in self._started:
            process.close()


Prepare = Callable[..., Example]


@pytest.fixture
def example(redis_server: RedisServer, tmp_path: Path) -> Iterator[Prepare]:
    """Copies one of the examples, with the one line changed."""
    prepared: list[Example] = []

    def prepare(name: str, broker_url: str = redis_server.url) -> Example:
        try:
            folder = source("celery") / "examples" / name
        except NoSource as error:
            pytest.skip(str(error))
        shutil.copytree(folder, tmp_path / name)
        changed = 0
        for module in (tmp_path / name).rglob("*.py"):
            text = module.read_text()
            module.write_text(on_taskapp(text))
            changed += module.read_text() != text
        assert changed == (name != "resultgraph")
        prepared.append(Example(tmp_path / name, broker_url, redis_server.url))
        return prepared[-1]

    yield prepare
    for each in prepared:
        each.close()


def test_tutorial(example: Prepare) -> None:
    it = example("tutorial")
    it.worker(*CELERY, "-A", "tasks")
    assert it.run("from tasks import add; print(add.delay(4, 4).get(timeout=60))") == "8"


@pytest.mark.slow
def test_app(example: Prepare) -> None:
    it = example("app")
    it.worker(*CELERY, "-A", "myapp")
    assert it.run("from myapp import add; print(add.delay(16, 16).get(timeout=60))") == "32"


@pytest.mark.slow
def test_next_steps(example: Prepare) -> None:
    it = example("next-steps")
    it.worker(*CELERY, "-A", "proj")
    said = it.run(
        "from celery import chain, chord, group; from proj.tasks import add, mul, xsum\n"
        "print(add.delay(2, 2).get(timeout=60), chain(add.s(4, 4) | mul.s(8))().get(timeout=60),\n"
        "      group(add.s(i, i) for i in range(10))().get(timeout=60),\n"
        "      chord((add.s(i, i) for i in range(10)), xsum.s())().get(timeout=60))"
    )
    assert said == "4 64 [0, 2, 4, 6, 8, 10, 12, 14, 16, 18] 90"


@pytest.mark.slow
def test_periodic_tasks(example: Prepare) -> None:
    it = example("periodic-tasks")
    worker = it.worker(*CELERY, "-A", "myapp")
    it.start(*CELERY, "-A", "myapp", "beat", "-l", "INFO", name="beat")
    eventually(lambda: worker.output().count("myapp.say") >= 3, WAIT)
    assert "hello" in worker.output()


@pytest.mark.slow
def test_pydantic(example: Prepare) -> None:
    it = example("pydantic")
    it.worker(*CELERY, "-A", "tasks")
    assert it.run("from tasks import x; print(x.delay({'value': 1}).get(timeout=60))") == "{'value': 'example: 1'}"


@pytest.mark.slow
def test_quorum_queues(example: Prepare, tmp_path: Path, redis_server: RedisServer) -> None:
    if not rabbitmq.is_installed():
        pytest.skip("rabbitmq-server is not installed")
    server = rabbitmq.RabbitMQ(tmp_path)
    try:
        it = example("quorum-queues", server.url)
        # It connects where it is imported, to a fixed address.
        declared = it.folder / "declare_queue.py"
        declared.write_text(declared.read_text().replace("amqp://guest@localhost//", server.url))
        worker = it.worker(*CELERY, "-A", "myapp")
        said = it.run("from myapp import example; example()", text="1\n2\n3\nQ\n")
        assert "Hello, Quorum Queue!" in said
        assert "  - celery" in said
        eventually(lambda: worker.output().count("succeeded") >= 4, WAIT)
        said = it.run("from myapp import example; example()", text="4\nQ\n")
        worker.wait(WAIT)
    finally:
        server.close()


@pytest.mark.slow
def test_resultgraph(example: Prepare) -> None:
    it = example("resultgraph")
    # Celery 5 has no ``celery.task``: unchanged, the example runs nowhere.
    tasks = it.folder / "tasks.py"
    tasks.write_text(tasks.read_text().replace("signature, task, uuid", "shared_task as task, signature, uuid"))
    (it.folder / "main.py").write_text("from taskapp import Celery\napp = Celery('main', include=['tasks'])\n")
    it.worker(*CELERY, "-A", "main")
    said = it.run(
        "from main import app; from celery.result import result_from_tuple as known; from tasks import A\n"
        "batches = known(A.delay().get(timeout=60), app).get(timeout=60)\n"
        "print([known(each, app).get(timeout=60)[9] for each in batches])"
    )
    assert said == str([f"{letter} 9" for letter in "ABCDEFGH"])


@pytest.mark.slow
def test_security(example: Prepare) -> None:
    it = example("security")
    (it.folder / "ssl").mkdir(exist_ok=True)
    it.run(
        "", "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ssl/worker.key",
        "-out", "ssl/worker.pem", "-days", "365", "-subj", "/CN=worker",
    )  # fmt: skip
    it.worker(*CELERY, "-A", "mysecureapp")
    assert it.run("from mysecureapp import boom; print(boom.delay().get(timeout=60))") == "I am a signed message"


@pytest.mark.slow
def test_stamping(example: Prepare) -> None:
    it = example("stamping")
    worker = it.worker(*CELERY, "-A", "myapp")
    examples = "run_example1(); run_example2(); run_example3(); run_example_with_replace()"
    it.run(f"import myapp; from examples import *; {examples}")
    eventually(lambda: worker.output().count(" succeeded in ") >= 15, WAIT)
    assert "Found stamps: ['mtask_id']" in worker.output()
    assert '"on_callback": ' in worker.output()
    it.run("import myapp; from revoke_example import *; run_then_revoke()")
    eventually(lambda: "a task that was stopped" in worker.output(), WAIT)
    assert "20 seconds passed" not in worker.output()


@pytest.mark.slow
def test_django(example: Prepare) -> None:
    it = example("django")
    manage = (sys.executable, "manage.py")
    it.run("", *manage, "migrate")
    it.worker(*CELERY, "-A", "proj")
    program = (
        "import time\n"
        "from demoapp.models import Widget\n"
        "from demoapp.tasks import add, count_widgets, rename_widget\n"
        "one = Widget.objects.create(name='old')\n"
        "said = [add.delay(2, 3).get(timeout=60), count_widgets.delay().get(timeout=60)]\n"
        "rename_widget.delay_on_commit(one.id, 'new')\n"
        "until = time.monotonic() + 60\n"
        "while one.name == 'old' and time.monotonic() < until: one.refresh_from_db()\n\n"
        "print(said, one.name)\n"
    )
    assert "[5, 1] new" in it.run("", *manage, "shell", text=program)
