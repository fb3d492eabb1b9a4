"""Runs ``taskapp`` commands, a JSON list of arguments a line, as if on a terminal; prints what each wrote as JSON."""

from __future__ import annotations

import contextlib
import io
import json
import sys

from taskapp.cli.main import main


class Terminal(io.StringIO):
    """What is printed here keeps its colours, and would keep everything else."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


def typed(argv: list[str]) -> str:
    """Return all that a command writes, its errors, too."""
    terminal = Terminal()
    sys.argv = ["taskapp", *argv]
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal), contextlib.suppress(SystemExit):
        main()
    return terminal.getvalue()


if __name__ == "__main__":
    for line in sys.stdin:
        sys.stdout.write(json.dumps(typed(json.loads(line))) + "\n")
