"""``taskapp.send_email``: sends one e-mail to one or more recipients, with attachments.

``message`` composes the mail, ``run`` sends it; this module decides what to do with the outcome.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.time import get_exponential_backoff_interval

from taskapp.errors import PermanentError, TransientError
from taskapp.settings import get_settings
from taskapp.tasks.shared.first_use import models_of
from taskapp.tasks.shared.shipped import shipped

if TYPE_CHECKING:
    from taskapp.tasks.send_email.model import Attachment, EmailMessage, Refusal, SentEmail

__all__ = ["Attachment", "EmailMessage", "Refusal", "SentEmail", "send_email"]

if not TYPE_CHECKING:
    __getattr__ = models_of(__name__, __all__, "taskapp.tasks.send_email.model")

RETRY_BACKOFF_SECONDS = 2
RETRY_BACKOFF_MAX_SECONDS = 600

logger = logging.getLogger(__name__)


@shipped(
    name="taskapp.send_email",
    needs_extra="mail",
    # A run that hit its soft time limit left the mail unconfirmed, as a lost connection does.
    autoretry_for=(TransientError, SoftTimeLimitExceeded),
    retry_backoff=RETRY_BACKOFF_SECONDS,
    retry_backoff_max=RETRY_BACKOFF_MAX_SECONDS,
    # About 25 minutes on average: greylisting accepts a mail after five to fifteen.
    max_retries=12,
    soft_time_limit=600,
    time_limit=660,
)
def send_email(message: EmailMessage) -> SentEmail:
    """Send one e-mail; return its Message-ID, derived from ``message.dedup_id``, and its recipients.

    Delivers at least once: running it again sends the mail again, and so does a crash or a lost
    connection between the mail server's answer and our record of it. The repeated mail has the same
    Message-ID, so that mail systems that check it show only one.

    The result lists recipients the server refused permanently; the others have the mail. Recipients
    it deferred (4xx) are retried in a retry of this task that skips everyone already settled, so
    nobody gets the mail twice because of them.

    Raises:
        TransientError: No server, no answer, or "try later", even after the last retry.
        PermanentError: The server refuses every recipient, the sender, the login, the mail or
            encryption; or an attachment is missing or too large. Nobody got this run's mail.
    """
    from taskapp.tasks.send_email.model import dedup_id_for
    from taskapp.tasks.send_email.run import deliver

    settings = get_settings()
    dedup_id = message.dedup_id or dedup_id_for(send_email.request.id)
    outcome = deliver(message, dedup_id, settings)
    sent = outcome.after(message.earlier)
    logger.info(
        "mail %s: %d accepted, %d refused, %d deferred",
        sent.message_id, len(sent.accepted), len(sent.refused), len(outcome.put_off),
        extra={"action": "email"},
    )  # fmt: skip
    if outcome.put_off:
        _retry_for_the_rest(message.model_copy(update={"dedup_id": dedup_id, "earlier": sent}), outcome.put_off)
    if not sent.accepted:
        raise PermanentError(f"the mail server refused every recipient: {_listed(sent.refused)}; correct them")
    return sent


def _retry_for_the_rest(rest: EmailMessage, put_off: list[Refusal]) -> None:
    countdown_seconds = get_exponential_backoff_interval(
        factor=RETRY_BACKOFF_SECONDS,
        retries=send_email.request.retries,
        maximum=RETRY_BACKOFF_MAX_SECONDS,
        full_jitter=True,
    )
    error = TransientError(f"the mail server deferred {_listed(put_off)}; the other recipients are settled")
    raise send_email.retry(args=(rest,), kwargs={}, exc=error, countdown=countdown_seconds)


def _listed(refusals: list[Refusal]) -> str:
    shown = ", ".join(f"{one.recipient!r} ({one.code} {one.answer})" for one in refusals[:10])
    return shown + (f" and {len(refusals) - 10} more" if len(refusals) > 10 else "")
