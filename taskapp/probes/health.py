"""What a node says of itself, and ``taskapp health live|ready``, which reads it.

A node writes its state each second to a file of its own under the data directory and holds a lock
on it; the system lets go of the lock when the process ends, however it ends. A file without its
lock is left over, and removed. No clock that can be set is compared, and no process id.

Standard library only, and of that what is loaded anyway: the answer is there before ``json`` or
``pathlib`` would be imported.
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
"""A file has its size from the start, and is overwritten in place: a full disk does not matter."""
LONGEST_NAME = 200
PATIENCE_SECONDS = 30.0
"""How long a node may stand still before it is not live."""
SILENT_SECONDS = 5.0
"""A node that has written nothing for so long is not ready."""

USAGE = """\
Usage: taskapp health live|ready [--node NAME] [--json] [--patience SECONDS]

  Say whether the nodes and beats of this machine are well, by what they write
  to TASKAPP_DATA_DIR. Asks no broker. Exit code 0: yes, 1: no, 2: misused.

  live   the process works: its loop turns and its pool is there. Also while
         Redis is away, a task takes long, or it drains. Not live: restart it.
  ready  it takes tasks now: live, connected, not starting and not draining.

Options:
  --node NAME         One node only: worker@host, or its part before the @.
  --json              One JSON object a line.
  --patience SECONDS  How long it may stand still before it is not live; 30.
  -h, --help          Show this message and exit.
"""


class Status:
    """The state of one node; times are of the system's monotonic clock, the same for all processes."""

    def __init__(self, name: str) -> None:
        self.name = name[:LONGEST_NAME].replace("\n", " ")
        self.pid = os.getpid()
        self.phase = "starting"
        """``starting``, also while it waits for its broker; ``running``; ``draining``."""
        self.written_at = 0.0
        self.turn_due_at = 0.0
        """When the loop has turned last, or is to turn next where it means to sleep."""
        self.in_task = False
        """Whether the loop's own thread runs a task: then it need not turn."""
        self.broker_at = 0.0
        """Last contact with the broker; 0: nothing is known."""
        self.pool_at = 0.0
        """When the pool was last found whole."""
        self.pool_problem = ""
        """What is wrong with the pool; empty: nothing."""
        self.ends_at = 0.0
        """When it ends at the latest; 0: it is not draining."""

    def dump(self) -> bytes:
        """Return it as lines ``name=value``, of ``FILE_BYTES`` bytes."""
        text = "".join(f"{name}={value}\n" for name, value in vars(self).items())
        return text.replace("\0", "").encode(errors="replace")[: FILE_BYTES - 1].ljust(FILE_BYTES - 1) + b"\n"

    @classmethod
    def load(cls, data: bytes) -> Status | None:
        """Return what ``dump`` wrote, or ``None`` for anything else."""
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
    """Return what is wrong with the process, or the empty string."""
    silent_seconds = now - status.written_at
    if silent_seconds > patience_seconds:
        return f"it has said nothing for {silent_seconds:.0f} s: it is stopped, or a task holds its interpreter"
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
    """Return why it takes no tasks at this moment, or the empty string."""
    if problem := why_not_live(status, now, patience_seconds):
        return problem
    if now - status.written_at > SILENT_SECONDS:
        return f"it has said nothing for {now - status.written_at:.0f} s"
    if status.phase != "running":
        return "it is draining" if status.phase == "draining" else "it is starting, or waits for its broker"
    if status.broker_at and now - status.broker_at > SILENT_SECONDS:
        return f"it has not reached its broker for {now - status.broker_at:.0f} s"
    return status.pool_problem


QUESTIONS = {"live": why_not_live, "ready": why_not_ready}


# --- reading --------------------------------------------------------------------------------------


def directory(data_dir: str) -> str:
    """Return where the nodes of ``data_dir`` write."""
    return os.path.join(data_dir, "nodes")


def nodes(data_dir: str) -> Iterator[Status]:
    """Yield the state of every other process that lives; remove what dead ones left.

    Raises:
        OSError: The directory cannot be read, for another reason than that there is none.
    """
    where = directory(data_dir)
    try:
        names = sorted(os.listdir(where))
    except FileNotFoundError:
        return
    # Opening and closing a file of its own would cost this process the lock.
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
        for _ in range(3):  # it may be written at this moment
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


def _is_meant(status: Status, wanted: str) -> bool:
    return wanted in ("", status.name, status.name.partition("@")[0])


# --- the command ----------------------------------------------------------------------------------


class _Misused(Exception):
    pass


def main(arguments: list[str]) -> int:
    """Answer ``taskapp health``: print it and return the exit code."""
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
        asked = [status for status in nodes(home) if _is_meant(status, options["--node"])]
    except OSError as error:
        sys.stderr.write(f"Error: cannot read {directory(home)!r}: {error.strerror}\n")
        return 1
    if not asked:
        named = f"no node named {options['--node']!r}" if options["--node"] else "no node"
        sys.stderr.write(f"Error: {named} runs here (looked in {directory(home)!r}; see TASKAPP_DATA_DIR)\n")
        return 1
    return max(_answer(question, status, patience_seconds, options["--json"]) for status in asked)


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
            raise _Misused(f"no option {word!r}; there are {', '.join(options)}")
        else:
            questions.append(word)
    if len(questions) != 1 or questions[0] not in QUESTIONS:
        raise _Misused(f"say live or ready, not {' '.join(questions)!r}")
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
