"""The task types that ship, one file each. Web applications import what they submit from here."""

from __future__ import annotations

from taskapp.tasks.add import add
from taskapp.tasks.canary import canary

__all__ = ["add", "canary"]
