"""Type parameters of tasks, signatures and results; each has a default, so that plain ``Task`` means any task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import ParamSpec, TypeVar

    P = ParamSpec("P", default=...)
    R_co = TypeVar("R_co", covariant=True, default=Any)
else:
    from typing import ParamSpec, TypeVar

    P = ParamSpec("P")
    """Parameters of a task's function, without the task itself if it is bound."""
    R_co = TypeVar("R_co", covariant=True)
    """Type of a task's result."""
