"""What does not exist, or cannot be read, ends a command with a sentence that names it and the remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import RedisServer, clean_environment, run_python

QUEUES = "(queues: critical, high, default, low; add one with TASKAPP_QUEUES)"
NO_TASK = "no task with the id 'nosuch' is waiting, is running or has a result"
UNKNOWN = (
    ("celery call taskapp.add --queue nosuch", f"no queue named 'nosuch' {QUEUES}"),
    ("celery call taskapp.ad", "no task named 'taskapp.ad'; did you mean 'taskapp.add'?"),
    (
        "celery call taskapp.add --args [1,2] --serializer nosuch",
        "serializer is 'nosuch'; use one that",
    ),
    ("celery purge -f -Q nosuch", f"no queue named 'nosuch' {QUEUES}"),
    ("celery purge -f -Q default,critica", f"no queue named 'critica'; did you mean 'critical'? {QUEUES}"),
    ("celery purge -f -X nosuch", f"no queue named 'nosuch' {QUEUES}"),
    ("celery worker -Q nosuch", f"no queue named 'nosuch' {QUEUES}"),
    ("celery beat -S no.such:Scheduler", "no scheduler 'no.such:Scheduler': No module named 'no'; give it as"),
    ("celery result nosuch", NO_TASK),
    ("celery inspect -t 0.1 -d nosuch@host ping", "no reply from nosuch@host within 0.1 s; 'celery -A taskapp status'"),
    ("taskapp task show nosuch", NO_TASK),
    ("taskapp dead list --queue nosuch", f"no queue named 'nosuch' {QUEUES}"),
    ("taskapp dead purge --all --yes --queue nosuch", f"no queue named 'nosuch' {QUEUES}"),
    ("taskapp dead replay --all --queue nosuch", f"no queue named 'nosuch' {QUEUES}"),
    ("taskapp delayed list --queue nosuch", f"no queue named 'nosuch' {QUEUES}"),
    ("taskapp schedules show nosuch", "no schedule named 'nosuch'; see: taskapp schedules list"),
    ("taskapp health live --node nosuch", "no node named 'nosuch' runs here"),
)
PORT = "its port is not a number from 1 to 65535"
UNREADABLE = (
    ("celery call taskapp.add --args [1,2]", "TASKAPP_BROKER_URL", "redis://host:port/0", PORT),
    ("celery worker", "TASKAPP_BROKER_URL", "sentinel://host:port", PORT),
    ("celery purge -f", "TASKAPP_RESULT_URL", "redis://host:port/0", PORT),
    (
        "taskapp task show nosuch",
        "TASKAPP_RESULT_URL",
        "rediss://host/0?ssl_cert_reqs=no",
        "ssl_cert_reqs must be one",
    ),
    ("taskapp dead list", "TASKAPP_BROKER_URL", "amqp://host:port//", PORT),
)


def run(command: str, directory: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    program, *arguments = command.split()
    module = ["celery", "-A", "taskapp"] if program == "celery" else [program]
    environment = clean_environment(TASKAPP_DATA_DIR=str(directory), COLUMNS="400", C_FORCE_ROOT="1", **variables)
    return run_python("-m", *module, *arguments, env=environment, cwd=directory)


def assert_said(done: subprocess.CompletedProcess[str], sentence: str) -> None:
    assert sentence in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode != 0


@pytest.mark.parametrize(("command", "sentence"), UNKNOWN)
def test_what_does_not_exist_is_named(command: str, sentence: str, tmp_path: Path, redis_server: RedisServer) -> None:
    assert_said(run(command, tmp_path, TASKAPP_BROKER_URL=redis_server.url), sentence)


@pytest.mark.parametrize(("command", "setting", "url", "why"), UNREADABLE)
def test_a_url_that_cannot_be_read_is_refused(command: str, setting: str, url: str, why: str, tmp_path: Path) -> None:
    variables = {"TASKAPP_BROKER_URL": "redis://127.0.0.1:1/0", setting: url}

    assert_said(run(command, tmp_path, **variables), f"setting {setting} cannot be '***': {why}")


@pytest.mark.parametrize("setting", ["TASKAPP_BROKER_URL", "TASKAPP_RESULT_URL"])
@pytest.mark.parametrize(
    "command", ["celery worker", "celery inspect ping", "taskapp dead list", "taskapp exporter", "taskapp up"]
)
def test_a_scheme_that_nothing_speaks_is_refused(command: str, setting: str, tmp_path: Path) -> None:
    done = run(command, tmp_path, **{"TASKAPP_BROKER_URL": "redis://127.0.0.1:1/0", setting: "http://x"})

    assert_said(done, f"setting {setting} cannot be '***': no ")
    assert "has the scheme http://; use one of: " in done.stderr


@pytest.mark.quick("history status", "up")
@pytest.mark.parametrize("command", ["history status", "history run", "history search", "history show x", "up"])
def test_history_without_sqlalchemy_names_the_extra(command: str, tmp_path: Path) -> None:
    start = f"import sys; sys.modules['sqlalchemy'] = None; sys.argv = ['taskapp', *{command.split()}]; "
    environment = clean_environment(
        TASKAPP_DATA_DIR=str(tmp_path), TASKAPP_HISTORY="true", TASKAPP_BROKER_URL="redis://127.0.0.1:1/0"
    )
    done = subprocess.run(
        [sys.executable, "-c", start + "from taskapp.cli.main import main; main()"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip

    assert_said(done, "Error: history needs the package sqlalchemy; install it with pip install 'taskapp[history]'")


@pytest.mark.parametrize("scheme", ["redis", "rediss"])
@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("celery call taskapp.add --args [1,2]", "the broker did not accept 'taskapp.add'"),
        ("celery purge -f", "a server cannot be reached: Error 111"),
        ("taskapp dead list", "the broker cannot be reached: Error 111"),
        ("taskapp task show nosuch", "Error 111 connecting to 127.0.0.1:1"),
    ],
)
def test_a_server_that_is_away_is_named(command: str, sentence: str, scheme: str, tmp_path: Path) -> None:
    assert_said(run(command, tmp_path, TASKAPP_BROKER_URL=f"{scheme}://127.0.0.1:1/0"), sentence)


def test_a_purge_of_queues_there_are_goes_on(tmp_path: Path, redis_server: RedisServer) -> None:
    called = run("celery call taskapp.add --args [1,2] --queue low", tmp_path, TASKAPP_BROKER_URL=redis_server.url)
    done = run("celery purge -f -Q low -X high", tmp_path, TASKAPP_BROKER_URL=redis_server.url)

    assert called.returncode == done.returncode == 0, called.stderr + done.stderr
    assert "Purged 1 message" in done.stdout


PROGRAMS = (
    "celery worker", "celery beat", "celery flower --port=0", "celery inspect ping", "taskapp exporter --port 0",
    "taskapp up", "taskapp dead list", "taskapp doctor", "taskapp top --once", "taskapp redis status",
    "taskapp history status",
)  # fmt: skip
MALFORMED = (
    ("redis://host:port/0", PORT),
    ("redis://host:70000/0", PORT),
    ("redis://host:0/0", PORT),
    ("redis://host/db", "its path is not a database number, such as the 0 in redis://host/0"),
    ("redis://ho st/0", "its host name contains white space"),
    ("redis://[::1/0", "it cannot be read as a URL"),
    ("redis+socket://", "it names no socket; write redis+socket:///path/to/redis.sock"),
    ("amqp://host:port//", PORT),
    ("localhost:6379", "use a URL, such as redis://localhost:6379/0"),
)


@pytest.mark.parametrize("command", PROGRAMS)
def test_each_program_refuses_a_broker_url_with_a_wrong_port(command: str, tmp_path: Path) -> None:
    done = run(command, tmp_path, TASKAPP_BROKER_URL="redis://host:port/0")

    assert_said(done, f"Error: setting TASKAPP_BROKER_URL cannot be '***': {PORT}; percent-encode user and password")
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize(("url", "why"), MALFORMED)
def test_each_part_of_a_broker_url_is_checked(url: str, why: str, tmp_path: Path) -> None:
    assert_said(
        run("taskapp dead list", tmp_path, TASKAPP_BROKER_URL=url),
        f"Error: setting TASKAPP_BROKER_URL cannot be '***': {why}",
    )


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("redis://127.0.0.1:1/0?nosuch=1", "its query has an option that kombu does not know; move it to"),
        ("sqs://", "sqs:// needs a package that is not installed: No module named 'boto"),
    ],
)
@pytest.mark.parametrize("command", ["celery worker", "taskapp dead list"])
def test_what_kombu_cannot_use_is_refused(command: str, url: str, why: str, tmp_path: Path) -> None:
    done = run(command, tmp_path, TASKAPP_BROKER_URL=url)

    assert_said(done, f"Error: setting TASKAPP_BROKER_URL cannot be '***': {why}")


FLOWER = (
    ("--nosuch", "flower has no option '--nosuch'"),
    ("--prot=1", "flower has no option '--prot'; did you mean '--port'?"),
    ("-l INFO", "flower has no option '-l'; did you mean '--logging'?"),
    ("5555", "flower takes no argument '5555'; write options as --port=5555"),
    ("--port 5555", "option --port needs a value; write --port=VALUE"),
    ("--port=x", "--port cannot be 'x': it is not a number"),
    ("--port=65536", "--port cannot be '65536': a port must be a number from 0 to 65535"),
    ("--inspect_timeout=x", "--inspect_timeout cannot be 'x': it is not a number"),
    ("--conf=/no/such/file", "--conf cannot be '/no/such/file': no such file"),
    ("--unix_socket=/no/such/socket", "Flower cannot listen on /no/such/socket: No such file or directory; choose"),
    ("--address=192.0.2.1", "Flower cannot listen on 192.0.2.1:5555: Cannot assign requested address; choose another"),
)


@pytest.mark.parametrize(("arguments", "sentence"), FLOWER)
def test_flower_refuses_what_it_would_pass_over(arguments: str, sentence: str, tmp_path: Path) -> None:
    done = run(f"celery flower {arguments}", tmp_path, TASKAPP_BROKER_URL="redis://127.0.0.1:1/0")

    assert_said(done, f"Error: {sentence}")


def test_flower_and_exporter_name_a_port_that_is_in_use(tmp_path: Path, redis_server: RedisServer) -> None:
    for command in (f"celery flower --port={redis_server.port}", f"taskapp exporter --port {redis_server.port}"):
        done = run(command, tmp_path, TASKAPP_BROKER_URL=redis_server.url)

        assert_said(done, f"cannot listen on 127.0.0.1:{redis_server.port}: Address already in use; choose another ")
        assert "Error: " in done.stderr


def test_a_number_of_flower_in_the_environment_is_checked(tmp_path: Path) -> None:
    done = run("celery flower", tmp_path, TASKAPP_BROKER_URL="redis://127.0.0.1:1/0", FLOWER_PORT="x")

    assert_said(done, "Error: FLOWER_PORT cannot be 'x': it is not a number")


def test_what_kubernetes_sets_for_a_service_named_flower_is_no_port(tmp_path: Path) -> None:
    link = {"FLOWER_PORT": "tcp://10.0.0.1:5555", "FLOWER_ADDRESS": "192.0.2.1"}
    done = run("celery flower", tmp_path, TASKAPP_BROKER_URL="redis://127.0.0.1:1/0", **link)

    assert_said(done, "Error: Flower cannot listen on 192.0.2.1:5555")


@pytest.mark.parametrize("command", ["celery worker", "celery beat", "celery flower --port=0"])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "no module named 'broken'; correct the name, or run this in the folder that holds it"),
        ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package' ({file}, line 1)"),
        ("\n1 / 0", "ZeroDivisionError: division by zero ({file}, line 2)"),
        ("def f(:", "SyntaxError: invalid syntax ({file}, line 1)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(
    command: str, text: str | None, why: str, tmp_path: Path, redis_server: RedisServer
) -> None:
    file = tmp_path / "broken.py"
    if text is not None:
        file.write_text(text)
    variables = {"TASKAPP_BROKER_URL": redis_server.url, "TASKAPP_INCLUDE": "broken", "PYTHONPATH": str(Path.cwd())}

    done = run(command, tmp_path, **variables)

    named = "Error: the module 'broken', named in TASKAPP_INCLUDE, cannot be imported: "
    assert_said(done, named + why.format(file=file))
    assert text is None or "to see the traceback, run: python -c 'import broken'" in done.stderr


@pytest.mark.parametrize("command", ["worker", "beat", "flower"])
def test_a_command_of_celery_is_named_as_such(command: str, tmp_path: Path) -> None:
    done = run(f"taskapp {command} -l INFO", tmp_path)

    assert_said(done, f"Error: no command '{command}'; run: celery -A taskapp {command}\n")
    assert done.returncode == 2


@pytest.mark.parametrize(
    "command",
    ["celery worker -f /no/such/log", "celery beat -f /no/such/log", "celery worker --statedb /no/such/state"],
)
def test_a_file_that_cannot_be_written_is_named(command: str, tmp_path: Path, redis_server: RedisServer) -> None:
    done = run(command, tmp_path, TASKAPP_BROKER_URL=redis_server.url)

    assert "Error: '/no/such/" in done.stderr
    assert "cannot be used: No such file or directory; give another path" in done.stderr


def test_a_settings_file_that_is_not_there_is_named_by_probes_too(tmp_path: Path) -> None:
    environment = {**clean_environment(), "TASKAPP_ENV_FILE": "/no/such/file"}
    argv = [sys.executable, "-m", "taskapp", "health", "live"]
    done = subprocess.run(argv, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)

    assert_said(done, "Error: setting TASKAPP_ENV_FILE cannot be '/no/such/file': the file does not exist")


@pytest.mark.parametrize("command", ["celery worker", "celery beat", "celery flower --port=0"])
def test_ctrl_c_while_a_command_starts_is_no_failure(command: str, tmp_path: Path, redis_server: RedisServer) -> None:
    # Imported before Celery's own handlers are there.
    (tmp_path / "interrupting.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    variables = {"TASKAPP_INCLUDE": "interrupting", "PYTHONPATH": str(Path.cwd())}

    done = run(command, tmp_path, TASKAPP_BROKER_URL=redis_server.url, **variables)

    assert (done.returncode, "Aborted" in done.stderr, "Traceback" in done.stderr) == (0, False, False), done.stderr


@pytest.mark.parametrize("command", ["up", "top", "exporter"])
def test_ctrl_c_while_a_program_of_ours_starts_is_no_failure(command: str, tmp_path: Path) -> None:
    start = "import os, signal, sys, taskapp.settings; from taskapp.cli.main import main; "
    interrupt = "taskapp.settings.get_settings = lambda: os.kill(os.getpid(), signal.SIGINT); "
    argv = [sys.executable, "-c", f"{start}{interrupt}sys.argv = ['taskapp', {command!r}]; main()"]
    done = subprocess.run(
        argv, env=clean_environment(TASKAPP_DATA_DIR=str(tmp_path)), cwd=tmp_path, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, "")
