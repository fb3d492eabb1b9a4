"""Serves a tab over HTTP: its page, JSON and actions, all behind Flower's login."""

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
from taskapp.monitor.flower.page.tab import TAKEN_MOST, ActionRequest, Done, PageQuery, Tab
from taskapp.monitor.flower.page.view import Note, View, as_json
from taskapp.monitor.flower.source import Problem, TabSource

logger = logging.getLogger(__name__)

PACKAGE = resources.files("taskapp.monitor.flower")
# Absolute, so that Flower's loader finds it here, and the template it extends in Flower.
PAGE = str(PACKAGE / "templates" / "tab.html")
STATIC = str(PACKAGE / "static")
BODY_BYTES_MOST = 1 << 20
POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
"""Neither Flower's pages nor ours use inline code; forbidding frames prevents clickjacking."""


class Assets(StaticFileHandler):
    """Our scripts and stylesheet; browsers revalidate them on each page, so that updates take effect at once."""

    def set_extra_headers(self, path: str) -> None:  # noqa: ARG002 - tornado's signature
        """Make browsers revalidate cached files."""
        self.set_header("Cache-Control", "no-cache")


class _TabHandler(BaseHandler):
    def initialize(self, tab: Tab, source: TabSource) -> None:
        self.tab, self.source = tab, source

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Content-Security-Policy", POLICY)
        self.set_header("Cache-Control", "no-store")


class TabPage(_TabHandler):
    """The page; its script loads the content."""

    @authenticated
    def get(self) -> None:
        """Render the page without waiting for the broker."""
        options = self.application.options
        self.render(PAGE, tab=self.tab, read_only=options.read_only, auto_refresh=options.auto_refresh)


class _Json(_TabHandler):
    def prepare(self) -> None:
        # ``authenticated`` would redirect a program to the login page.
        if not self.current_user:
            raise HTTPError(403, "log in again")

    def write_error(self, status_code: int, **about: Any) -> None:
        error = about.get("exc_info", (None, None))[1]
        if status_code == 401:
            super().write_error(status_code, **about)
            return
        message = error.get_message() if isinstance(error, HTTPError) else None
        self.set_status(status_code)
        self.answer({"error": message or "internal error; see Flower's log"})

    def answer(self, value: Any) -> None:
        """Write ``value`` as JSON."""
        self.set_header("Content-Type", "application/json; charset=UTF-8")
        self.finish(json.dumps(value, allow_nan=False))


class TabData(_Json):
    """The content of the page."""

    async def get(self) -> None:
        """Answer ``{"at": Unix seconds, "refresh_seconds": …, "blocks": […]}``; see ``flower.page.view``."""
        query = PageQuery({name: self.get_query_argument(name) for name in self.request.query_arguments})
        try:
            view = await self.source.call(partial(self.tab.view, self.capp, query))
        except NoEngine:
            view = View([Note(self.tab.without_engine)], refresh_seconds=60.0)
        self.answer({**as_json(view), "at": view.at or time.time()})


class TabAction(_Json):
    """Carries out an action of the tab."""

    def check_xsrf_cookie(self) -> None:
        """Refuse requests another site may have sent: Flower's checks, plus a content type no form can send."""
        super().check_xsrf_cookie()
        if self.request.headers.get("Content-Type", "").partition(";")[0].strip() != "application/json":
            raise HTTPError(403, "post actions as application/json")

    async def post(self, name: str) -> None:
        """Take ``{"keys": […]}`` or ``{"fits": {…}, "at": …, "cursor": …}``; answer with the fields of ``Done``."""
        if self.application.options.read_only:
            raise HTTPError(403, "Flower is read-only; start it with a login, such as FLOWER_BASIC_AUTH=user:password")
        action = self.tab.actions.get(name)
        if action is None:
            raise HTTPError(404, f"no action {name!r} on this tab")
        order = self._order()
        try:
            done: Done = await self.source.call(partial(action, self.capp, order), changes=True)
        except NoEngine as error:
            raise Problem(409, str(error)) from error
        by_whom = f" by {order.who}" if order.who else ""
        logger.info("%s%s", done.text, by_whom, extra={"action": f"{self.tab.name}.{name}"})
        self.answer(asdict(done))

    def _order(self) -> ActionRequest:
        body = self._body()
        keys, fits, asked_at = body.get("keys", []), body.get("fits"), body.get("at", time.time())
        if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys) or len(keys) > TAKEN_MOST:
            raise HTTPError(400, f"keys must be a list of at most {TAKEN_MOST} strings")
        if not (isinstance(fits, dict) if not keys else fits is None):
            raise HTTPError(400, "give either keys or fits")
        if (fits is not None and "at" not in body) or not isinstance(asked_at, int | float):
            raise HTTPError(400, "with fits, give at: the time you looked, in Unix seconds")
        query = PageQuery({str(key): str(value) for key, value in fits.items()}) if fits is not None else None
        return ActionRequest(keys, query, str(body.get("cursor") or ""), float(asked_at), self._who())

    def _body(self) -> dict[str, Any]:
        raw = self.request.body
        try:
            body = json.loads(raw) if len(raw) <= BODY_BYTES_MOST else None
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise HTTPError(400, f"the body must be a JSON object of at most {BODY_BYTES_MOST} bytes")
        return body

    def _who(self) -> str:
        if self.application.options.auth:
            return str(self.current_user)
        with suppress(ValueError):
            return b64decode(self.request.headers.get("Authorization", "").partition(" ")[2]).decode().partition(":")[0]
        return ""
