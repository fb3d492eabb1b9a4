"""Finds the ``.env`` file of the current project.

Imports little, because the probes use it, too, and must start faster than ``settings`` allows.
"""

from __future__ import annotations

import os.path

TYPE_CHECKING = False  # like typing.TYPE_CHECKING, without the cost of that import
if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ENV_FILE_VARIABLE = "TASKAPP_ENV_FILE"
"""Names the ``.env`` file to read; empty: none. It is not a setting, because it says where settings are."""


def find_env_file(start: Path, environ: Mapping[str, str]) -> Path | None:
    """Return the ``.env`` of the project that contains ``start``, or ``None``.

    The project's root is the nearest folder upwards with a ``.env``, a ``pyproject.toml`` or a
    ``.git``. ``TASKAPP_ENV_FILE`` names another file; if empty, it disables the search. A file found by the search
    is ignored with a warning if another user may have written it, because it could name code to run.

    Raises:
        InvalidSetting: The file in ``TASKAPP_ENV_FILE`` does not exist.
    """
    from pathlib import Path

    if (named := environ.get(ENV_FILE_VARIABLE)) is not None:
        if named and not Path(named).is_file():
            from taskapp.errors import InvalidSetting

            raise InvalidSetting(ENV_FILE_VARIABLE, named, "the file does not exist")
        return Path(named) if named else None
    for directory in (start, *start.parents):
        if (directory / ".env").is_file() and _is_trusted(directory / ".env"):
            return directory / ".env"
        if (directory / "pyproject.toml").exists() or (directory / ".git").exists():
            return None
    return None


def _is_trusted(path: Path) -> bool:
    from taskapp.private_files import why_not_trusted

    reason = why_not_trusted(path)
    if reason:
        import logging

        logging.getLogger(__name__).warning(
            "ignoring %s: %s; set %s to its path if you trust it", path, reason, ENV_FILE_VARIABLE
        )
    return not reason


def data_dir(environ: Mapping[str, str]) -> str:
    """Return the setting ``data_dir`` as an absolute path, without reading the other settings.

    Raises:
        InvalidSetting: The file in ``TASKAPP_ENV_FILE`` does not exist.
    """
    directory = environ.get("TASKAPP_DATA_DIR")
    if directory is None:
        directory = _data_dir_of_env_file(environ)
    if directory is None:
        from platformdirs import user_data_dir

        directory = user_data_dir("taskapp", appauthor=False)
    return os.path.realpath(os.path.expanduser(directory))  # noqa: PTH111 - the same as Path, without its cost


def _data_dir_of_env_file(environ: Mapping[str, str]) -> str | None:
    from pathlib import Path

    env_file = find_env_file(Path.cwd(), environ)
    if env_file is None:
        return None
    from dotenv import dotenv_values

    return dotenv_values(env_file).get("TASKAPP_DATA_DIR")
