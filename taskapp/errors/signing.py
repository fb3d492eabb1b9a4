"""Errors of signing tasks."""

from __future__ import annotations

from taskapp.errors.extras import MissingExtra


class SigningPackageMissing(MissingExtra):
    """An app is set up to sign tasks, and the package for it is missing."""

    def __init__(self) -> None:
        super().__init__("app.setup_security()", "cryptography", "auth")
