"""Channels to the embedded Redis server: use the password of its current run, and trust only this user's process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taskapp.devredis.login import guarded

_Mixin: Any = object


class OwnServerChannel(_Mixin):
    """Mixed into kombu's channel: the transport option ``own_server`` is the directory of the embedded server."""

    own_server: str | None = None

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's signature
        params: dict[str, Any] = super()._connparams(asynchronous=asynchronous)
        return guarded(params, Path(self.own_server)) if self.own_server else params
