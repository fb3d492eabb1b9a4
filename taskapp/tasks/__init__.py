"""The task types that ship with taskapp, one module or folder each. Web applications import them from here."""

from __future__ import annotations

from taskapp.tasks.add import add
from taskapp.tasks.canary import canary
from taskapp.tasks.data_processing import data_processing
from taskapp.tasks.http_request import http_request
from taskapp.tasks.report_generation import report_generation
from taskapp.tasks.send_email import send_email

__all__ = ["add", "canary", "data_processing", "http_request", "report_generation", "send_email"]
