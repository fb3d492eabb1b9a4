"""``python -m taskapp``: the same as the ``taskapp`` command."""

from taskapp.cli.main import main

if __name__ == "__main__":
    main()
