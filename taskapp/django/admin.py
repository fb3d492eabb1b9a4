"""Pages in Django's admin: a task by its id, dead letters, schedules.

Users with the permission ``taskapp.view_task`` see them; ``taskapp.change_task`` also lets them replay dead letters.
Everything is read from the default app's Redis; a page shows its error if that is away.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.views.decorators.http import require_GET, require_http_methods
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from taskapp.celery import current
from taskapp.django.models import Task
from taskapp.errors import KeyTaken, TaskappError
from taskapp.monitor.task_state import State, task_state
from taskapp.schedules.formatting import when_text

SHOWN_MOST = 200
"""Maximum number of dead letters or schedules on a page, newest or first by name."""

logger = logging.getLogger(__name__)


@admin.register(Task)
class TaskAdmin(admin.ModelAdmin):
    """The pages."""

    def has_add_permission(self, request: HttpRequest) -> bool:  # noqa: ARG002 - Django's signature
        """Nobody adds tasks here."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:  # noqa: ARG002 - the same
        """Nobody deletes tasks here."""
        return False

    def get_urls(self) -> list[Any]:
        """Return the addresses of the pages, in place of those of a table."""
        pages: dict[str, tuple[str, Callable[..., HttpResponse]]] = {
            "": ("taskapp_task_changelist", require_GET(self._task)),
            "dead/": ("taskapp_dead", require_http_methods(["GET", "POST"])(self._dead)),
            "schedules/": ("taskapp_schedules", require_GET(self._schedules)),
        }
        return [path(where, self.admin_site.admin_view(view), name=name) for where, (name, view) in pages.items()]

    def _task(self, request: HttpRequest) -> HttpResponse:
        task_id = request.GET.get("id", "").strip()

        def look() -> dict[str, Any]:
            if not task_id:
                return {}
            found = task_state(task_id, current())
            timeline = [(_at(moment.at), moment.what, moment.detail) for moment in found.timeline]
            next_at = _at(found.next_at)
            return {
                "task": found, "is_unknown": found.state is State.UNKNOWN, "timeline": timeline, "next_at": next_at,
            }  # fmt: skip

        return self._page(request, "task", "Task", look, task_id=task_id)

    def _dead(self, request: HttpRequest) -> HttpResponse:
        if request.method == "POST":
            return self._replay(request)

        def look() -> dict[str, Any]:
            with current().engine() as engine:
                letters = engine.dead_letters.find(None, None, None, SHOWN_MOST)
                rows = [(letter, _at(letter.buried_at)) for letter in letters]
                return {"letters": rows, "total": sum(engine.dead_letters.count().values())}

        return self._page(request, "dead", "Dead letters", look, may_change=self.has_change_permission(request))

    def _replay(self, request: HttpRequest) -> HttpResponse:
        if not self.has_change_permission(request):
            raise PermissionDenied
        name = request.POST.get("letter", "")
        queue, _, number = name.rpartition("/")
        try:
            with current().engine() as engine:
                is_sent = number.isdecimal() and engine.dead_letters.replay(queue, int(number))
        except KeyTaken as error:
            messages.warning(request, f"the letter {error}")
        except (RedisError, OSError, OperationalError, TaskappError) as error:
            messages.error(request, f"{name}: {error}")
        else:
            level, text = (messages.SUCCESS, "sent again") if is_sent else (messages.WARNING, "no longer a dead letter")
            messages.add_message(request, level, f"{name}: {text}")
            logger.info(
                "%s replayed the dead letter %s: %s", request.user, name, text, extra={"action": "admin_replay"}
            )
        return HttpResponseRedirect(reverse(f"{self.admin_site.name}:taskapp_dead"))

    def _schedules(self, request: HttpRequest) -> HttpResponse:
        def look() -> dict[str, Any]:
            with current().schedules() as store:
                found = islice(store.all(""), SHOWN_MOST)
                rows = [(one, when_text(one.schedule), _at(one.due_at)) for one in found]
                return {"schedules": rows, "total": store.overview().total}

        return self._page(request, "schedules", "Schedules", look)

    def _page(
        self, request: HttpRequest, name: str, title: str, look: Callable[[], dict[str, Any]], **more: Any
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            raise PermissionDenied
        try:
            found = look()
        except (RedisError, OSError, OperationalError, TaskappError) as error:
            found = {"error": str(error)}
        context = {**self.admin_site.each_context(request), "title": title, "opts": self.opts, **more, **found}
        return TemplateResponse(request, f"taskapp_admin/{name}.html", context)


def _at(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
