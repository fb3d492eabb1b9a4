"""Channels to the server of ours: logged in as its present run wants it, and only to a process of our own user."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from taskapp.devredis.login import guarded

_Mixin: Any = object


class OwnServerChannel(_Mixin):
    """Mixed into a channel of kombu: the transport option ``own_server`` is the directory of the server of ours."""

    own_server: str | None = None

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002 - kombu's signature
        params: dict[str, Any] = super()._connparams(asynchronous=asynchronous)
        return guarded(params, Path(self.own_server)) if self.own_server else params
