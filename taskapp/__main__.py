"""The ``taskapp`` command, and ``python -m taskapp``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line; probes are answered before anything large is imported."""
    if sys.argv[1:2] == ["health"]:
        from taskapp.probes.health import main as answer

        try:
            sys.exit(answer(sys.argv[2:]))
        except Exception as error:
            from taskapp.errors import TaskappError

            if not isinstance(error, TaskappError):
                raise
            sys.exit(f"Error: {error}")
    from taskapp.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
