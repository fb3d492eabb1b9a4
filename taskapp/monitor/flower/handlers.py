"""A tab over HTTP: its page, its JSON, its actions; behind Flower's own login, all three."""

from __future__ import annotations

import json
import logging
import time
from base64 import b64decode
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from importlib import resources
from typing import Any

from flower.views import BaseHandler
from tornado.web import HTTPError, StaticFileHandler, authenticated

from taskapp.errors import NoEngine
from taskapp.monitor.flower.page.tab import TAKEN_MOST, ActionRequest, Asked, Done, Tab
from taskapp.monitor.flower.page.view import Note, View, as_json
from taskapp.monitor.flower.source import Problem, TabSource

logger = logging.getLogger(__name__)

PACKAGE = resources.files("taskapp.monitor.flower")
# Absolute: Flower's loader then takes it from here and what it extends from Flower.
PAGE = str(PACKAGE / "templates" / "tab.html")
STATIC = str(PACKAGE / "static")
BODY_BYTES_MOST = 1 << 20
POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
"""Of Flower's pages and ours nothing is inline; a frame of another site could lead clicks astray."""


class Assets(StaticFileHandler):
    """Our script and style; asked for anew at each page, so that an update is seen at once."""

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002 - tornado's signature
        """Let nothing be taken from a cache without asking."""
        self.set_header("Cache-Control", "no-cache")


class _TabHandler(BaseHandler):
    def initialize(self, tab: Tab, source: TabSource) -> None:
        self.tab, self.source = tab, source

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Cache-Control", "no-store")


class TabPage(_TabHandler):
    """The page; its script asks for what is in it."""

    @authenticated
    def get(self) -> None:
        """Answer at once, whatever the broker does."""
        options = self.application.options
        self.render(PAGE, tab=self.tab, read_only=options.read_only, auto_refresh=options.auto_refresh)


class _Json(_TabHandler):
    def prepare(self) -> None:
        # ``authenticated`` would send a program to a page to log in.
        if not self.current_user:
            raise HTTPError(403, "log in again")

    def write_error(self, status_code: int, **about: Any) -> None:
        error = about.get("exc_info", (None, None))[1]
        if status_code == 401:
            super().write_error(status_code, **about)
            return
        said = error.get_message() if isinstance(error, HTTPError) else None
        self.set_status(status_code)
        self.answer({"error": said or "something went wrong here; see the log of Flower"})

    def answer(self, value: Any) -> None:
        """Write ``value`` as JSON."""
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.finish(json.dumps(value, allow_nan=False))


class TabData(_Json):
    """What the page shows."""

    async def get(self) -> None:
        """Answer ``{"at": Unix seconds, "refresh_seconds": …, "blocks": […]}``, see ``flower.page.view``."""
        asked = Asked({name: self.get_query_argument(name) for name in self.request.query_arguments})
        try:
            view = await self.source.call(partial(self.tab.view, self.capp, asked))
        except NoEngine:
            view = View([Note(self.tab.without_engine)], refresh_seconds=60.0)
        self.answer({**as_json(view), "at": view.at or time.time()})


class TabAction(_Json):
    """Carries out an action of the tab."""

    def check_xsrf_cookie(self) -> None:
        """Refuse what another site may have sent: Flower's own checks, and a type no form can have."""
        super().check_xsrf_cookie()
        if self.request.headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
            raise HTTPError(403, "an action is posted as application/json")

    async def post(self, name: str) -> None:
        """Take ``{"keys": […]}`` or ``{"fits": {…}, "at": …, "cursor": …}``; answer what came of it."""
        if self.application.options.read_only:
            raise HTTPError(
                403, "Flower is read-only here; start it with a login, such as FLOWER_BASIC_AUTH=user:password"
            )
        action = self.tab.actions.get(name)
        if action is None:
            raise HTTPError(404, "no such action")
        order = self._order()
        try:
            done: Done = await self.source.call(partial(action, self.capp, order), changes=True)
        except NoEngine as error:
            raise Problem(409, str(error)) from error
        whose = f" by {order.who}" if order.who else ""
        logger.info("%s%s", done.text, whose, extra={"action": f"{self.tab.name}.{name}"})
        self.answer(asdict(done))

    def _order(self) -> ActionRequest:
        said = self._said()
        keys, fits, asked_at = said.get("keys", []), said.get("fits"), said.get("at", time.time())
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(keys) > TAKEN_MOST:
            raise HTTPError(400, f"keys is a list of at most {TAKEN_MOST} texts")
        if not (isinstance(fits, dict) if not keys else fits is None):
            raise HTTPError(400, "give keys, or fits")
        if (fits is not None and "at" not in said) or not isinstance(asked_at, int | float):
            raise HTTPError(400, "with fits, at says when you looked, in Unix seconds")
        asked = Asked({str(key): str(value) for key, value in fits.items()}) if fits is not None else None
        return ActionRequest(keys, asked, str(said.get("cursor") or ""), float(asked_at), self._who())

    def _said(self) -> dict[str, Any]:
        body = self.request.body
        try:
            said = json.loads(body) if len(body) <= BODY_BYTES_MOST else None
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise HTTPError(400, f"the body is a JSON object of at most {BODY_BYTES_MOST} bytes")
        return said

    def _who(self) -> str:
        if self.application.options.auth:
            return str(self.current_user)
        with suppress(ValueError):
            return b64decode(self.request.headers.get("Authorization", "").partition(" ")[2]).decode().partition(":")[0]
        return ""
