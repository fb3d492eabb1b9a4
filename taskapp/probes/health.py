"""The status of a node, and ``taskapp health live|ready``, which reads it.

Each node writes its status once a second to a file under the data directory and holds a lock on it, which the system
releases when the process ends for any reason. An unlocked file is stale and is removed. Neither wall clocks nor process
ids are compared.

Uses only standard library modules that are loaded at startup anyway: importing ``json`` or ``pathlib`` would take
longer than answering.
"""

from __future__ import annotations

import fcntl
import os
import sys
import time

TYPE_CHECKING = False  # as in typing, which is not worth its import here
if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIX = ".node"
FILE_BYTES = 1024
"""Fixed size of a file, which is overwritten in place, so that a full disk does not matter."""
LONGEST_NAME = 200
PATIENCE_SECONDS = 30.0
"""How long a node may make no progress and still count as live."""
SILENT_SECONDS = 5.0
"""A node that has not reported for this long is not ready."""

USAGE = """\
Usage: taskapp health live|ready [--node NAME] [--json] [--patience SECONDS]

  Check the nodes and beats on this machine, using the status files they write
  to TASKAPP_DATA_DIR. Contacts no broker.

  live   The process works: its loop is turning and its pool is running. It
         stays live while Redis is unreachable, a task takes long, or it
         drains. If a node is not live, restart it.
  ready  It accepts tasks now: live, connected, not starting, not draining.

  Exit code: 0 if all are, 1 if not, 2 on a usage error.

Options:
  --node NAME         Check only this node: worker@host, or the part before @.
  --json              Print one JSON object per line.
  --patience SECONDS  How long a live node may make no progress. Default: 30.
  -h, --help          Show this message and exit.
"""


class Status:
    """The status of a node. Times are of the system's monotonic clock, which all processes share."""

    def __init__(self, name: str) -> None:
        self.name = name[:LONGEST_NAME].replace("\n", " ")
        self.pid = os.getpid()
        self.phase = "starting"
        """``starting`` (including while it waits for its broker), ``running`` or ``draining``."""
        self.written_at = 0.0
        self.turn_due_at = 0.0
        """When the loop last turned, or must turn next if it sleeps on purpose."""
        self.in_task = False
        """Whether the loop's own thread runs a task, so that the loop need not turn."""
        self.broker_at = 0.0
        """Last contact with the broker; 0 if unknown."""
        self.pool_at = 0.0
        """When the pool was last found without a problem."""
        self.pool_problem = ""
        """Description of the pool's problem; empty if there is none."""
        self.ends_at = 0.0
        """Latest end of the process; 0 if it is not draining."""

    def dump(self) -> bytes:
        """Return the status as lines of ``name=value``, padded or cut to ``FILE_BYTES`` bytes."""
        text = "".join(f"{name}={value}\n" for name, value in vars(self).items())
        return text.replace("\0", "").encode(errors="replace")[: FILE_BYTES - 1].ljust(FILE_BYTES - 1) + b"\n"

    @classmethod
    def load(cls, data: bytes) -> Status | None:
        """Return the status from ``data`` as written by ``dump``, or ``None`` for anything else."""
        status = cls("")
        if len(data) != FILE_BYTES:
            return None
        try:
            for line in data.decode().split("\n"):
                name, _, value = line.partition("=")
                if name in vars(status):
                    setattr(status, name, _typed(value, getattr(status, name)))
        except ValueError:
            return None
        return status if status.written_at else None


def _typed(value: str, like: object) -> object:
    if isinstance(like, bool):
        return value == "True"
    return type(like)(value)  # type: ignore[call-arg]  # str, int or float


# --- judging --------------------------------------------------------------------------------------


def why_not_live(status: Status, now: float, patience_seconds: float = PATIENCE_SECONDS) -> str:
    """Return why the process is not live, or an empty string."""
    silent_seconds = now - status.written_at
    if silent_seconds > patience_seconds:
        return f"it has not reported for {silent_seconds:.0f} s: it is stopped, or a task blocks its interpreter"
    if status.phase == "draining":
        late_seconds = now - status.ends_at
        return f"it should have ended {late_seconds:.0f} s ago" if late_seconds > patience_seconds else ""
    if status.phase == "starting":
        return ""
    still_seconds = now - status.turn_due_at
    if still_seconds > patience_seconds and not status.in_task:
        return f"its loop has not turned for {still_seconds:.0f} s"
    dead_seconds = now - status.pool_at
    if status.pool_problem and dead_seconds > patience_seconds:
        return f"{status.pool_problem}, for {dead_seconds:.0f} s"
    return ""


def why_not_ready(status: Status, now: float, patience_seconds: float = PATIENCE_SECONDS) -> str:
    """Return why the process is not accepting tasks now, or an empty string."""
    if problem := why_not_live(status, now, patience_seconds):
        return problem
    if now - status.written_at > SILENT_SECONDS:
        return f"it has not reported for {now - status.written_at:.0f} s"
    if status.phase != "running":
        return "it is draining" if status.phase == "draining" else "it is starting or waiting for its broker"
    if status.broker_at and now - status.broker_at > SILENT_SECONDS:
        return f"it has not reached its broker for {now - status.broker_at:.0f} s"
    return status.pool_problem


QUESTIONS = {"live": why_not_live, "ready": why_not_ready}


# --- reading --------------------------------------------------------------------------------------


def directory(data_dir: str) -> str:
    """Return the directory of the status files under ``data_dir``."""
    return os.path.join(data_dir, "nodes")


def nodes(data_dir: str) -> Iterator[Status]:
    """Yield the status of every other live process; remove the files of dead ones.

    Raises:
        OSError: The directory exists but cannot be read.
    """
    where = directory(data_dir)
    try:
        names = sorted(os.listdir(where))
    except FileNotFoundError:
        return
    # Closing any descriptor of its own file would release this process's lock.
    mine = f".{os.getpid()}{SUFFIX}"
    for name in names:
        if not name.endswith(SUFFIX) or name.endswith(mine):
            continue
        if (status := _read(os.path.join(where, name))) is not None:
            yield status


def _read(path: str) -> Status | None:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if _is_left_over(file):
            os.unlink(path)
            return None
        for _ in range(3):  # the node may be writing it right now
            if (status := Status.load(os.pread(file, FILE_BYTES + 1, 0))) is not None:
                return status
        return None
    except OSError:
        return None
    finally:
        os.close(file)


def _is_left_over(file: int) -> bool:
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _matches(status: Status, node: str) -> bool:
    return node in ("", status.name, status.name.partition("@")[0])


# --- the command ----------------------------------------------------------------------------------


class _Misused(Exception):
    pass


def main(arguments: list[str]) -> int:
    """Run ``taskapp health`` with ``arguments``: print the answer and return the exit code."""
    if "-h" in arguments or "--help" in arguments:
        sys.stdout.write(USAGE)
        return 0
    try:
        question, options = _parsed(arguments)
        patience_seconds = float(options["--patience"])
    except (_Misused, ValueError) as problem:
        sys.stderr.write(f"{USAGE.splitlines()[0]}\n\nError: {problem}\n")
        return 2
    from taskapp.env_file import data_dir

    home = data_dir(os.environ)
    try:
        found = [status for status in nodes(home) if _matches(status, options["--node"])]
    except OSError as error:
        sys.stderr.write(f"Error: cannot read {directory(home)!r}: {error.strerror}\n")
        return 1
    if not found:
        named = f"no node named {options['--node']!r}" if options["--node"] else "no node"
        sys.stderr.write(f"Error: {named} runs here (looked in {directory(home)!r}; see TASKAPP_DATA_DIR)\n")
        return 1
    return max(_answer(question, status, patience_seconds, options["--json"]) for status in found)


def _parsed(arguments: list[str]) -> tuple[str, dict[str, str]]:
    options = {"--node": "", "--json": "", "--patience": str(PATIENCE_SECONDS)}
    questions = []
    words = iter(arguments)
    for word in words:
        name, is_joined, value = word.partition("=")
        if name == "--json":
            options[name] = "yes"
        elif name in options:
            options[name] = value if is_joined else next(words, "")
            if not options[name]:
                raise _Misused(f"option {name} needs a value")
        elif word.startswith("-"):
            raise _Misused(f"unknown option {word!r}; use one of {', '.join(options)}")
        else:
            questions.append(word)
    if len(questions) != 1 or questions[0] not in QUESTIONS:
        raise _Misused(f"expected live or ready, not {' '.join(questions)!r}")
    return questions[0], options


def _answer(question: str, status: Status, patience_seconds: float, as_json: str) -> int:
    now = time.monotonic()
    problem = QUESTIONS[question](status, now, patience_seconds)
    if as_json:
        import json

        fields = {
            "node": status.name, "pid": status.pid, "question": question, "ok": not problem, "problem": problem,
            "phase": status.phase, "turned_seconds_ago": round(max(0.0, now - status.turn_due_at), 3),
            "broker_seconds_ago": round(now - status.broker_at, 3) if status.broker_at else None,
        }  # fmt: skip
        sys.stdout.write(json.dumps(fields) + "\n")
    elif problem:
        sys.stderr.write(f"Error: {status.name} is not {question}: {problem}\n")
    else:
        sys.stdout.write(f"{status.name} is {question}\n")
    return 1 if problem else 0
