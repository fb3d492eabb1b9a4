"""``taskapp.send_email``: one e-mail to one or more recipients, with attachments.

``message`` writes the mail, ``run`` sends it; what to do with the outcome is decided here.
"""

from __future__ import annotations

import logging

from celery.exceptions import SoftTimeLimitExceeded
from celery.utils.time import get_exponential_backoff_interval

from taskapp.celery import app
from taskapp.errors import PermanentError, TransientError
from taskapp.settings import get_settings
from taskapp.tasks.send_email.model import Attachment, EmailMessage, Refusal, SentEmail, dedup_id_for

__all__ = ["Attachment", "EmailMessage", "Refusal", "SentEmail", "send_email"]

RETRY_BACKOFF_SECONDS = 2
RETRY_BACKOFF_MAX_SECONDS = 600

logger = logging.getLogger(__name__)


@app.task(
    name="taskapp.send_email",
    needs_extra="mail",
    # A run that hit its soft limit left the mail unconfirmed, like a lost connection.
    autoretry_for=(TransientError, SoftTimeLimitExceeded),
    retry_backoff=RETRY_BACKOFF_SECONDS,
    retry_backoff_max=RETRY_BACKOFF_MAX_SECONDS,
    # About 25 minutes on average: greylisting lets a mail in after five to fifteen.
    max_retries=12,
    soft_time_limit=600,
    time_limit=660,
)
def send_email(message: EmailMessage) -> SentEmail:
    """Send one e-mail; return its Message-ID, derived from ``message.dedup_id``, and who got it.

    At least once: running it again sends the mail again, and so does a crash, or a lost
    connection, between the mail server's answer and our record of it. It is the same mail, with
    the same Message-ID, so that mail systems which look for it fold the two.

    Recipients the server refuses for good are listed in the result; the others have the mail.
    Those it puts off (4xx) are tried again alone, in a retry of this task that leaves out
    everyone already settled; who has the mail does not get it again on their account.

    Raises:
        TransientError: No server, no answer, or "try later", still so after the last retry.
        PermanentError: Every recipient is refused, or the server refuses the sender, the login,
            the mail or protection; or an attachment is missing or too large. Nobody got this run's mail.
    """
    from taskapp.tasks.send_email.run import deliver

    settings = get_settings()
    dedup_id = message.dedup_id or dedup_id_for(send_email.request.id)
    outcome = deliver(message, dedup_id, settings)
    sent = outcome.after(message.earlier)
    logger.info(
        "mail %s: %d accepted, %d refused, %d put off",
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
    error = TransientError(f"the mail server put off {_listed(put_off)}; the other recipients are settled")
    raise send_email.retry(args=(rest,), kwargs={}, exc=error, countdown=countdown_seconds)


def _listed(refusals: list[Refusal]) -> str:
    shown = ", ".join(f"{one.recipient!r} ({one.code} {one.answer})" for one in refusals[:10])
    return shown + (f" and {len(refusals) - 10} more" if len(refusals) > 10 else "")
