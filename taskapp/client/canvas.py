"""Signatures of taskapp's tasks, which cost little more than the tasks themselves in groups and chord headers."""

from __future__ import annotations

from typing import Any

from taskapp.client.async_canvas import Signature
from taskapp.client.limits.duplicates import known_as
from taskapp.client.option_checks import check_priority
from taskapp.client.option_names import check_names
from taskapp.client.protocol import new_id

_Signature: Any = Signature  # its types are for users

OF_MEMBERS = {"task_id": "id", "root_id": "root_id", "group_id": "group", "group_index": "group_index"}
"""Options that a group sets on its tasks, and the headers they become."""
OF_GROUPS = frozenset({"producer", "add_to_parent", "chord", "group_id", "args", "kwargs"})
"""Arguments that a group without options passes when it sends its tasks."""


class TaskSignature(_Signature):
    """Celery's signature of one task. A signature with options of its own is sent Celery's way."""

    _app: Any
    _type: Any
    _is_member = False
    """Whether its only options are those set by a group."""

    def clone(self, args: Any = None, kwargs: Any = None, **options: Any) -> Any:
        """Return a copy with additional arguments and options."""
        if args or kwargs or options or self["options"] or self._type is None:
            return super().clone(args, kwargs, **options)
        copy = TaskSignature(self)
        copy["kwargs"], copy["options"] = dict(self["kwargs"]), {}
        copy._app, copy._type = self._app, self._type
        return copy

    def set(self, immutable: bool | None = None, **options: Any) -> Any:  # noqa: FBT001 - Celery's signature
        """Set options like Celery; check them now, because a step of a chain is sent elsewhere.

        Raises:
            UnknownOption: An option is misspelt.
            BadOption: The priority is not an integer from 0 to 9.
            BadLimit: A number that all tasks of a type share is given.
        """
        check_names(self["task"], options, self.app)
        check_priority(self["task"], options.get("priority"))
        return super().set(immutable, **options)

    def freeze(
        self, _id: str | None = None, group_id: str | None = None, chord: Any = None, root_id: str | None = None,
        parent_id: str | None = None, group_index: int | None = None,
    ) -> Any:  # fmt: skip
        """Set its id, like Celery; return its result."""
        options = self["options"]
        if options or chord or parent_id or not group_id or group_index is None or self._type is None:
            return super().freeze(_id or new_id(), group_id, chord, root_id, parent_id, group_index)
        self._is_member = True
        options["task_id"] = task_id = _id or new_id()
        if root_id:
            options["root_id"] = root_id
        options["reply_to"] = self._type.app.thread_oid
        options["group_id"], options["group_index"] = group_id, group_index
        result = self._type.AsyncResult(task_id)
        return result if self._type.declared_limits is None else self._kept(result)

    def apply_async(self, args: Any = None, kwargs: Any = None, route_name: str | None = None, **options: Any) -> Any:
        """Submit the task, like Celery."""
        if self._is_plain_member(args, kwargs, options):
            own = self["options"]
            headers = {header: own[option] for option, header in OF_MEMBERS.items() if option in own}
            if self._own_result is not None:
                with known_as(self._own_result):
                    is_sent = self._type.submit_member(self["args"], self["kwargs"], headers)
            else:
                is_sent = self._type.submit_member(self["args"], self["kwargs"], headers)
            if is_sent:
                return None  # a group knows its results
        return super().apply_async(args, kwargs, route_name, **options)

    def _is_plain_member(self, args: Any, kwargs: Any, options: dict[str, Any]) -> bool:
        """Return whether a group sends it and nothing was added since that group froze it."""
        own = self["options"]
        return (
            self._is_member and not args and not kwargs
            and len(own) == (5 if "root_id" in own else 4)
            and own["reply_to"] == self._type.app.thread_oid
            and options.get("chord") is None and options.get("add_to_parent") is False
            and options.get("group_id") == own["group_id"] and options.keys() <= OF_GROUPS
        )  # fmt: skip
