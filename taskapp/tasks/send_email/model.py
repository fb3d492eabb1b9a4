"""Payload and result of ``taskapp.send_email``.

Schemas are built at first use (``defer_build``), because a node and a web app import all task types and use some.
"""

from __future__ import annotations

import base64
import binascii
import mimetypes
import re
import uuid
from pathlib import PurePath
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from taskapp.tasks.send_email.address import MailAddress, check_one_line
from taskapp.tasks.shared.texts import Text

MAX_RECIPIENTS = 1_000
"""A server may accept fewer at a time; it then defers the rest, which follow in a retry."""
MAX_ATTACHMENT_BYTES = 25 * 1_048_576
"""Maximum total size of a mail's attachments; mail servers rarely accept more."""

WHOLE_MAILS = ("multipart/", "message/")
"""Content types with an inner structure that an attachment's bytes would break."""

DEDUP_ID = r"[A-Za-z0-9_+=-]+(\.[A-Za-z0-9_+=-]+)*"


def _check_address(text: str) -> str:
    MailAddress.parse(text)
    return text


def _one_is_a_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _check_content_type(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9!#$&^_.+-]*/[a-z0-9][a-z0-9!#$&^_.+-]*", value, re.IGNORECASE):
        raise ValueError("give a content type such as 'application/pdf', without parameters")
    if value.lower().startswith(WHOLE_MAILS):
        raise ValueError("a multipart or message type cannot be attached; use 'application/octet-stream'")
    return value.lower()


def _check_filename(value: str) -> str:
    check_one_line(value)
    if not value.strip(" .") or PurePath(value).name != value or "\\" in value:
        raise ValueError("give a plain file name such as 'report.pdf', without folders")
    return value


Address = Annotated[str, Field(max_length=400), AfterValidator(_check_address)]
"""``jo@example.com`` or ``Jo Doe <jo@example.com>``; names and domains in any script."""
Addresses = Annotated[list[Address], BeforeValidator(_one_is_a_list), Field(max_length=MAX_RECIPIENTS)]


class Attachment(BaseModel, defer_build=True):
    """A file in the allowed directories, or inline content."""

    model_config = ConfigDict(extra="forbid")

    path: str | None = None
    """A file below one of TASKAPP_FILE_DIRS, read when the task runs."""
    content_base64: Annotated[str, Field(max_length=MAX_ATTACHMENT_BYTES * 4 // 3 + 4)] | None = Field(None, repr=False)
    """The content itself. It travels in the message and counts toward TASKAPP_MAX_PAYLOAD_BYTES."""
    filename: Annotated[str, Field(max_length=255), AfterValidator(_check_filename)] | None = None
    """The name the recipient sees. Empty: the name of ``path``."""
    content_type: Annotated[str, AfterValidator(_check_content_type)] | None = None
    """Empty: guessed from the name."""

    @model_validator(mode="after")
    def _has_one_source(self) -> Attachment:
        if (self.path is None) == (self.content_base64 is None):
            raise ValueError("an attachment needs either 'path' or 'content_base64'; give exactly one")
        if self.content_base64 is not None and self.filename is None:
            raise ValueError("inline content needs a name; give 'filename'")
        try:
            base64.b64decode(self.content_base64 or "", validate=True)
        except binascii.Error as error:
            raise ValueError(f"'content_base64' is not valid Base64: {error}") from error
        return self

    @property
    def shown_name(self) -> str:
        """The name the recipient sees."""
        return self.filename or PurePath(self.path or "").name

    @property
    def media_type(self) -> str:
        """The content type, given or guessed from the name."""
        guessed, encoding = mimetypes.guess_type(self.shown_name)
        is_plain_file = guessed and not encoding and not guessed.startswith(WHOLE_MAILS)
        return self.content_type or (guessed if guessed and is_plain_file else "application/octet-stream")


class Refusal(BaseModel, defer_build=True):
    """A recipient the mail server does not deliver to, with its answer."""

    recipient: str
    code: int
    answer: str


class SentEmail(BaseModel, defer_build=True):
    """Outcome of sending a mail. Addresses are bare: no names, domains in ASCII."""

    message_id: str
    accepted: list[str] = Field(default_factory=list)
    """Recipients for whom the mail server accepted the mail."""
    refused: list[Refusal] = Field(default_factory=list)
    """Recipients it refused permanently (5xx)."""


class EmailMessage(BaseModel, defer_build=True):
    """One e-mail. Texts and attachments stay out of ``repr``."""

    model_config = ConfigDict(extra="forbid")

    to: Addresses = Field(default_factory=list)
    cc: Addresses = Field(default_factory=list)
    bcc: Addresses = Field(default_factory=list)
    """Recipients who get the mail but appear nowhere in it."""
    sender: Address | None = None
    """Empty: TASKAPP_MAIL_FROM."""
    reply_to: Addresses = Field(default_factory=list)
    subject: Annotated[str, Field(max_length=900), AfterValidator(check_one_line)] = ""
    text: Text | None = Field(default=None, repr=False)
    html: Text | None = Field(default=None, repr=False)
    """If ``text`` is also given, mail programs choose which to show."""
    attachments: list[Attachment] = Field(default_factory=list)
    dedup_id: Annotated[str, Field(max_length=200, pattern=f"^{DEDUP_ID}$")] | None = None
    """Identifies the mail across repeats: becomes its Message-ID. Empty: derived from the task's id."""
    earlier: SentEmail | None = None
    """Recipients settled by earlier runs, which this run skips. Set by a retry; leave it empty."""

    @model_validator(mode="after")
    def _is_complete(self) -> EmailMessage:
        if not (self.to or self.cc or self.bcc):
            raise ValueError("a mail needs a recipient; give 'to', 'cc' or 'bcc'")
        if len(self.to) + len(self.cc) + len(self.bcc) > MAX_RECIPIENTS:
            raise ValueError(f"a mail can have at most {MAX_RECIPIENTS} recipients; submit several")
        if self.text is None and self.html is None:
            raise ValueError("a mail needs a body; give 'text', 'html' or both")
        return self

    def open_recipients(self) -> list[str]:
        """Return the bare addresses of recipients not settled yet, each once."""
        every = dict.fromkeys(MailAddress.parse(text).spec for text in (*self.to, *self.cc, *self.bcc))
        settled = [*self.earlier.accepted, *(one.recipient for one in self.earlier.refused)] if self.earlier else []
        return [address for address in every if address not in settled]


def dedup_id_for(task_id: str | None) -> str:
    """Return the id that all runs of the task ``task_id`` share; without an id, a new one."""
    if task_id and len(task_id) <= 200 and re.fullmatch(DEDUP_ID, task_id):
        return task_id
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"taskapp:{task_id}") if task_id else uuid.uuid4())
