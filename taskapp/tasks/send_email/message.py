"""Composes a mail as it goes over the wire."""

from __future__ import annotations

import base64
import email.message
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path

from taskapp.errors import PermanentError
from taskapp.tasks.send_email.address import MailAddress, encoded
from taskapp.tasks.send_email.model import MAX_ATTACHMENT_BYTES, Attachment, EmailMessage
from taskapp.tasks.shared.files import allowed_path

# Every mail server accepts seven-bit content, whatever extensions it announces.
_POLICY = SMTP.clone(cte_type="7bit")


@dataclass(frozen=True)
class Loaded:
    """An attachment with its content in memory."""

    name: str
    media_type: str
    content: bytes


def load(attachments: Sequence[Attachment], roots: Sequence[Path]) -> list[Loaded]:
    """Read all attachments into memory, at most ``MAX_ATTACHMENT_BYTES`` in total.

    Raises:
        PathNotAllowed: A path leads outside ``roots``.
        PermanentError: A file cannot be read, or the attachments are too large together.
    """
    loaded: list[Loaded] = []
    left_bytes = MAX_ATTACHMENT_BYTES
    for one in attachments:
        content = _content(one, roots, left_bytes)
        left_bytes -= len(content)
        if left_bytes < 0:
            raise PermanentError(
                f"attachments up to {one.shown_name!r} take more than {MAX_ATTACHMENT_BYTES} bytes; send a link instead"
            )
        loaded.append(Loaded(one.shown_name, one.media_type, content))
    return loaded


def _content(attachment: Attachment, roots: Sequence[Path], left_bytes: int) -> bytes:
    if attachment.path is None:
        return base64.b64decode(attachment.content_base64 or "")
    path = allowed_path(attachment.path, roots, must_exist=True)
    try:
        with path.open("rb") as file:
            # One extra byte shows that a file is too large, without reading all of it.
            return file.read(left_bytes + 1)
    except OSError as error:
        raise PermanentError(f"attachment {attachment.path!r} cannot be read: {error}") from error


def write(
    message: EmailMessage, sender: MailAddress, message_id: str, attachments: Sequence[Loaded], sent_at: datetime
) -> bytes:
    """Return the whole mail with CRLF line ends; ``bcc`` appears nowhere in it.

    The mail is ASCII, unless an address has a non-ASCII local part.
    """
    headers = [
        f"Date: {format_datetime(sent_at)}",
        f"From: {sender.header}",
        *_address_line("To", message.to),
        *_address_line("Cc", message.cc),
        *_address_line("Reply-To", message.reply_to),
        f"Subject: {encoded(message.subject)}",
        f"Message-ID: {message_id}",
    ]
    content: bytes = _content_of(message, attachments).as_bytes()
    return "\r\n".join(headers).encode() + b"\r\n" + content


def _address_line(field: str, addresses: Sequence[str]) -> list[str]:
    # Not written with the email package: before Python 3.11.9 it encodes the commas between long
    # addresses together with the names (CVE-2025-1795), and folds some names into new headers.
    return [f"{field}: " + ",\r\n ".join(MailAddress.parse(text).header for text in addresses)] if addresses else []


def _content_of(message: EmailMessage, attachments: Sequence[Loaded]) -> email.message.EmailMessage:
    content = email.message.EmailMessage(_POLICY)
    if message.text is not None:
        content.set_content(message.text)
        if message.html is not None:
            content.add_alternative(message.html, subtype="html")
    else:
        content.set_content(message.html or "", subtype="html")
    for one in attachments:
        maintype, _, subtype = one.media_type.partition("/")
        content.add_attachment(one.content, maintype, subtype, filename=one.name)
    if "MIME-Version" not in content:
        content["MIME-Version"] = "1.0"
    return content
