"""Adds our tabs to Flower: their URLs and their entries in its navigation.

Uses only what Flower and tornado offer: the handlers and settings from which Flower builds its application, and
tornado's ``ui_modules``. Nothing is patched.
"""

from __future__ import annotations

from typing import Any

from flower import urls
from tornado.web import TemplateModule, url

from taskapp.monitor.flower.broker import REPLACED
from taskapp.monitor.flower.guard import guard
from taskapp.monitor.flower.handlers import PACKAGE, STATIC, Assets, TabAction, TabData, TabPage
from taskapp.monitor.flower.source import TabSource
from taskapp.monitor.flower.tabs import all_tabs

NAVIGATION = str(PACKAGE / "templates" / "navigation.html")
END_OF_TABS = b"</ul>"
"""Flower's navigation has two lists; the first holds its tabs."""


class Template(TemplateModule):
    """tornado's ``Template`` module, through which Flower's pages render the navigation; adds our tabs to it."""

    def render(self, path: str, **kwargs: Any) -> bytes:
        """Render ``path``; append our tabs to Flower's navigation."""
        html = super().render(path, **kwargs)
        if path != "navbar.html":
            return html
        ours = self.render_string(NAVIGATION, tabs=all_tabs(), active_tab=kwargs.get("active_tab", ""))
        before, end, after = html.partition(END_OF_TABS)
        return before + ours + end + after if end else html

    def css_files(self) -> list[str]:
        """Add our stylesheet to each page with the navigation."""
        return [*super().css_files(), self.handler.reverse_url("taskapp-static", "tabs.css")]


def install() -> None:
    """Add our tabs to the Flower that this process is about to start."""
    source = TabSource()
    ours = [url(r"/taskapp/static/(.+)", Assets, {"path": STATIC}, name="taskapp-static")]
    for tab in all_tabs():
        about = {"tab": tab, "source": source}
        ours += [
            url(rf"/{tab.name}", TabPage, about, name=f"tab-{tab.name}"),
            url(rf"/{tab.name}/data", TabData, about, name=f"tab-{tab.name}-data"),
            url(rf"/{tab.name}/actions/([a-z-]+)", TabAction, about, name=f"tab-{tab.name}-actions"),
        ]
    urls.handlers[:] = [_replaced(each, source) for each in urls.handlers]
    # Flower's last handler matches everything else.
    urls.handlers[-1:-1] = ours
    guard(urls.handlers, urls.settings)
    urls.settings["ui_modules"] = {"Template": Template}


def _replaced(handler: Any, source: TabSource) -> Any:
    """Return ``handler``, an entry of Flower's list, with our class in place of Flower's if we replace it."""
    if isinstance(handler, url):
        kind = REPLACED.get(handler.handler_class)
        return url(handler.regex.pattern, kind, {"source": source}, name=handler.name) if kind else handler
    kind = REPLACED.get(handler[1])
    return (handler[0], kind, {"source": source}) if kind else handler
