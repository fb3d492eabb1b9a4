"""Conducts one session with the mail server and interprets its answers."""

from __future__ import annotations

import contextlib
import smtplib
import ssl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from taskapp.errors import InvalidSetting, PermanentError, TaskappError, TransientError
from taskapp.settings import Settings
from taskapp.tasks.send_email.address import MailAddress
from taskapp.tasks.send_email.message import load, write
from taskapp.tasks.send_email.model import EmailMessage, Refusal, SentEmail

GOODBYE_SECONDS = 2.0
"""Timeout for the server's goodbye; the mail is settled by then."""


@dataclass(frozen=True)
class Delivery:
    """Recipients of one run that were accepted, permanently refused, and deferred."""

    message_id: str
    accepted: list[str] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)
    put_off: list[Refusal] = field(default_factory=list)

    def after(self, earlier: SentEmail | None) -> SentEmail:
        """Return the recipients settled by this run and earlier ones."""
        accepted, refused = (earlier.accepted, earlier.refused) if earlier else ([], [])
        return SentEmail(
            message_id=self.message_id, accepted=[*accepted, *self.accepted], refused=[*refused, *self.refused]
        )


def deliver(message: EmailMessage, dedup_id: str, settings: Settings) -> Delivery:
    """Send ``message`` once to its open recipients.

    Raises:
        TransientError: The server cannot be reached, does not answer, or defers the whole mail.
        PermanentError: The server refuses the whole mail or is not trusted, or the mail cannot be composed.
    """
    sender = _sender(message, settings)
    message_id = f"<{dedup_id}@{sender.domain}>"
    recipients = message.open_recipients()
    if not recipients:
        return Delivery(message_id)
    content = write(message, sender, message_id, load(message.attachments, settings.allowed_roots), datetime.now(UTC))
    try:
        with _session(settings) as server:
            options = _mail_options(server, content, [sender.spec, *recipients])
            answers = server.sendmail(sender.spec, recipients, content, options)
        return _outcome(message_id, recipients, answers)
    except smtplib.SMTPRecipientsRefused as error:
        return _none_accepted(message_id, recipients, error.recipients)
    except (smtplib.SMTPException, OSError, UnicodeError) as error:
        raise _meaning(error, settings) from error


def _sender(message: EmailMessage, settings: Settings) -> MailAddress:
    try:
        return MailAddress.parse(message.sender or settings.mail_from)
    except ValueError as error:
        raise InvalidSetting("TASKAPP_MAIL_FROM", settings.mail_from, str(error)) from error


def _mail_options(server: smtplib.SMTP, content: bytes, addresses: Sequence[str]) -> list[str]:
    if content.isascii() and all(address.isascii() for address in addresses):
        return []
    server.ehlo_or_helo_if_needed()
    if not server.has_extn("smtputf8"):
        raise PermanentError("the mail server accepts only ASCII addresses; use others, or a server with SMTPUTF8")
    return ["SMTPUTF8", "BODY=8BITMIME"]


# --- the session -----------------------------------------------------------------------------


@contextmanager
def _session(settings: Settings) -> Iterator[smtplib.SMTP]:
    """Yield a connection that is encrypted and logged in as the settings say."""
    if settings.smtp_username and settings.smtp_security == "none":
        raise PermanentError(
            "a login without encryption would expose the password to the network; "
            "set TASKAPP_SMTP_SECURITY to 'starttls' or 'tls'"
        )
    server = _connect(settings)
    try:
        if settings.smtp_security == "starttls":
            server.starttls(context=_trust(settings))
        if settings.smtp_username:
            server.login(settings.smtp_username, settings.smtp_password.get_secret_value())
        yield server
    finally:
        _leave(server)


def _connect(settings: Settings) -> smtplib.SMTP:
    host, port, timeout_seconds = settings.smtp_host, settings.smtp_port, settings.smtp_timeout_seconds
    if settings.smtp_security == "tls":
        return smtplib.SMTP_SSL(host, port, timeout=timeout_seconds, context=_trust(settings))
    return smtplib.SMTP(host, port, timeout=timeout_seconds)


def _trust(settings: Settings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.smtp_ca_file)
    except (OSError, ssl.SSLError) as error:
        problem = f"it contains no readable certificates: {error}"
        raise InvalidSetting("TASKAPP_SMTP_CA_FILE", str(settings.smtp_ca_file), problem) from error


def _leave(server: smtplib.SMTP) -> None:
    # The mail is already settled, so suppress errors: one would send it again.
    with contextlib.suppress(smtplib.SMTPException, OSError):
        if server.sock is not None:
            server.sock.settimeout(GOODBYE_SECONDS)
            server.quit()
    server.close()


# --- interpreting answers --------------------------------------------------------------------

Answers = Mapping[str, tuple[int, bytes]]


def _outcome(message_id: str, recipients: Sequence[str], answers: Answers) -> Delivery:
    return Delivery(
        message_id,
        accepted=[address for address in recipients if address not in answers],
        refused=_refusals(answers, permanent=True),
        put_off=_refusals(answers, permanent=False),
    )


def _none_accepted(message_id: str, recipients: Sequence[str], answers: Answers) -> Delivery:
    # A server that closes (421) midway leaves some recipients without an answer.
    closing = next((answer for answer in answers.values() if answer[0] == 421), (421, b"no answer"))
    every = {address: answers.get(address, closing) for address in recipients}
    return Delivery(message_id, [], _refusals(every, permanent=True), _refusals(every, permanent=False))


def _refusals(answers: Answers, *, permanent: bool) -> list[Refusal]:
    return [
        Refusal(recipient=address, code=code, answer=_text(answer))
        for address, (code, answer) in answers.items()
        if _is_permanent(code) == permanent
    ]


def _is_permanent(code: int) -> bool:
    return not 400 <= code < 500


def _text(answer: bytes | str) -> str:
    text = answer.decode(errors="replace") if isinstance(answer, bytes) else answer
    return " ".join(text.split())[:500]


def _meaning(error: Exception, settings: Settings) -> TaskappError:
    """Map an error of ``smtplib`` or the network to ours."""
    server = f"mail server {settings.smtp_host}:{settings.smtp_port}"
    match error:
        case smtplib.SMTPResponseException():
            return _meaning_of_answer(error, server)
        case smtplib.SMTPServerDisconnected():
            return TransientError(f"{server} closed the connection: {error}")
        case smtplib.SMTPException():
            return PermanentError(
                f"{server} cannot accept the mail: {error}; check TASKAPP_SMTP_SECURITY and the login"
            )
        case UnicodeError():
            return PermanentError(
                f"{server}: host name, login and password must be ASCII: {error}; correct the settings"
            )
        case ssl.SSLCertVerificationError():
            return PermanentError(
                f"{server} is not trusted: {error.verify_message}; name its CA in TASKAPP_SMTP_CA_FILE"
            )
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError() | ssl.SSLSyscallError():
            return TransientError(f"{server} closed the connection during the TLS handshake: {error}")
        case ssl.SSLError():
            return PermanentError(f"{server} does not speak TLS as configured: {error}; check TASKAPP_SMTP_SECURITY")
        case _:
            # Includes unknown names: resolvers of container platforms lose names for a while.
            return TransientError(f"{server} cannot be reached: {error}")


def _meaning_of_answer(error: smtplib.SMTPResponseException, server: str) -> TaskappError:
    answer = f"{error.smtp_code} {_text(error.smtp_error)}"
    if not _is_permanent(error.smtp_code):
        return TransientError(f"{server} deferred the mail: {answer}")
    if isinstance(error, smtplib.SMTPAuthenticationError):
        return PermanentError(f"{server} refused the login: {answer}; check TASKAPP_SMTP_USERNAME and its password")
    if isinstance(error, smtplib.SMTPSenderRefused):
        return PermanentError(f"{server} refused the sender {error.sender!r}: {answer}; use another sender")
    return PermanentError(f"{server} refused the mail: {answer}; correct it")
