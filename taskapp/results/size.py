"""Limits the size of results."""

from __future__ import annotations

from typing import Any

from celery import states
from celery.backends.base import DisabledBackend
from celery.exceptions import Retry
from kombu.exceptions import EncodeError

from taskapp.errors.tasks import ResultTooLarge

MOST_BYTES = 16 << 20
"""Default limit."""
TEXT_BYTES = 10
"""Maximum number of bytes per character in any encoding."""
LEAVES_MOST = 32


class ResultSize:
    """Measures results of one backend.

    Args:
        backend: Encodes the results.
    """

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        options = backend.app.conf.result_backend_transport_options or {}
        self.most = int(options.get("max_result_bytes", MOST_BYTES))

    def check(self, value: Any) -> None:
        """Check the size of ``value``, which a task returned.

        Raises:
            ResultTooLarge: It exceeds the limit.
        """
        if _is_small(value, self.most):
            return
        try:
            encoded = self._backend.encode(self._backend.encode_result(value, states.SUCCESS))
        except EncodeError:
            return  # storing it reports the error
        self.check_encoded(len(encoded))

    def check_encoded(self, size: int) -> None:
        """Check the ``size`` of an encoded result, in bytes.

        Raises:
            ResultTooLarge: It exceeds the limit.
        """
        if size > self.most:
            raise ResultTooLarge.of("the result", size, self.most)

    def fitting(self, error: BaseException) -> BaseException:
        """Return ``error``, or ``ResultTooLarge`` with its name if its texts exceed the limit."""
        try:
            texts = [str(error), *(arg for arg in error.args if isinstance(arg, str | bytes))]
        except Exception:  # noqa: BLE001 - raised by the class of the error
            return error
        size = max(map(len, texts))
        if size <= self.most:
            return error
        return ResultTooLarge.of(f"the text of {type(error).__name__}", size, self.most).with_traceback(
            error.__traceback__
        )


def check_returned(backend: Any, value: Any, *, is_sent_on: bool, is_ignored: bool) -> None:
    """Check the size of a returned value before anything is sent, unless the backend does so when it stores it.

    Args:
        backend: Backend that stores the value.
        value: Value that the task returned.
        is_sent_on: Whether other tasks get it.
        is_ignored: Whether it is not stored.

    Raises:
        ResultTooLarge: It exceeds the limit.
    """
    if is_sent_on or not (is_ignored or _measures(backend) or isinstance(backend, DisabledBackend)):
        _size_of(backend).check(value)


def fitting(backend: Any, error: BaseException) -> BaseException:
    """Return ``error``, which may be a ``Retry``, with its text limited to the size of a result."""
    size = _size_of(backend)
    if not isinstance(error, Retry):
        return size.fitting(error)
    if error.exc is not None:
        error.exc = size.fitting(error.exc)  # type: ignore[assignment]  # still an Exception
    return error


def _measures(backend: Any) -> bool:
    return bool(getattr(backend, "measures_results", False))


def _size_of(backend: Any) -> ResultSize:
    return backend.size if _measures(backend) else ResultSize(backend)


def _is_small(value: Any, most: int) -> bool:
    """Return whether ``value`` is certainly within the limit; cheap, without encoding it."""
    left, waiting = LEAVES_MOST, [value]
    while waiting:
        one = waiting.pop()
        left -= 1
        if left < 0:
            return False
        if isinstance(one, str | bytes):
            most -= TEXT_BYTES * len(one)
        elif isinstance(one, dict):
            if len(one) > left:
                return False
            waiting += one
            waiting += one.values()
        elif isinstance(one, list | tuple):
            if len(one) > left:
                return False
            waiting += one
        elif not (one is None or isinstance(one, float) or (isinstance(one, int) and one.bit_length() < 1_024)):
            return False
    return most > TEXT_BYTES * LEAVES_MOST * LEAVES_MOST
