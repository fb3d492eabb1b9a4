from __future__ import annotations

import asyncio
import email
import re
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email.policy import SMTPUTF8
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword

from taskapp.errors import InvalidSetting, PermanentError, TransientError
from taskapp.settings import Settings, load_settings
from taskapp.tasks.send_email import EmailMessage, Refusal
from taskapp.tasks.send_email.run import Delivery, deliver
from tests.support import Process, clean_environment, eventually, free_port

TASK_TYPE = "taskapp.tasks.send_email"


class MailServer:
    """A real aiosmtpd on loopback that keeps envelopes and answers as told.

    ``answers`` holds replies by recipient or command ("MAIL", "DATA", "QUIT"); each is used once,
    the last one repeatedly. What is not configured is accepted.
    """

    def __init__(self, *, tls: ssl.SSLContext | None = None, **options: Any) -> None:
        self.envelopes: list[Envelope] = []
        self.sessions = 0
        self.answers: dict[str, list[str]] = {}
        self._tls, self._options = tls, options

    def __enter__(self) -> MailServer:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self._thread.start()
        assert started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self, started: threading.Event) -> None:
        server = self._loop.run_until_complete(self._loop.create_server(self._session, "127.0.0.1", 0, ssl=self._tls))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def _session(self) -> SMTP:
        self.sessions += 1
        return SMTP(self, hostname="localhost", loop=self._loop, **{"enable_SMTPUTF8": True, **self._options})

    def _told(self, name: str) -> str | None:
        told = self.answers.get(name)
        return (told.pop(0) if len(told) > 1 else told[0]) if told else None

    async def handle_MAIL(  # noqa: N802
        self, server: SMTP, session: object, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if told := self._told("MAIL"):
            return told
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(  # noqa: N802
        self, server: SMTP, session: object, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        answer = self._told(address) or "250 OK"
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: object, envelope: Envelope) -> str:  # noqa: N802
        if told := self._told("DATA"):
            return told
        self.envelopes.append(envelope)
        return "250 kept"

    async def handle_QUIT(self, server: SMTP, session: object, envelope: Envelope) -> str:  # noqa: N802
        told = self._told("QUIT")
        if told == "silence":
            await asyncio.sleep(60)
        return told or "221 bye"


@contextmanager
def scripted(script: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on loopback that does what ``script`` says with each connection."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # the client may leave first
                script(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def talk(connection: socket.socket, *replies: str) -> None:
    """Greet, then answer one command after another."""
    connection.sendall(b"220 ready\r\n")
    for reply in replies:
        connection.recv(4096)
        connection.sendall(reply.encode() + b"\r\n")


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer() as running:
        yield running


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server_tls(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    return str(tmp_path / "ca.pem")


def settings(port: int, **values: object) -> Settings:
    merged = {"smtp_host": "127.0.0.1", "smtp_port": port, "smtp_timeout_seconds": 5, "mail_from": "shop@example.com"}
    return load_settings({f"TASKAPP_{name.upper()}": str(value) for name, value in {**merged, **values}.items()})


def task_type() -> Any:
    # A task at the top of the module would be bound before the `app` fixture says where the broker is.
    from taskapp.tasks.send_email import send_email

    return send_email


def mail(**fields: object) -> EmailMessage:
    return EmailMessage.model_validate({"to": "jo@example.com", "subject": "hi", "text": "hello", **fields})


def send(port: int, message: EmailMessage | None = None, **values: object) -> Delivery:
    return deliver(message or mail(), "m1", settings(port, **values))


# --- sent ------------------------------------------------------------------------------------


def test_a_mail_arrives_whole_at_every_recipient(server: MailServer, tmp_path: Path) -> None:
    (tmp_path / "report.pdf").write_bytes(b"%PDF \x00\xff\n.\n..\n")
    message = mail(
        to=['"Jürgen, M" <jo@bücher.example>'], cc="al@example.com", bcc="eve@example.com", subject="Grüße",
        text=".\nGrüße\n..\n", attachments=[{"path": str(tmp_path / "report.pdf")}],
    )  # fmt: skip

    outcome = send(server.port, message, file_dirs=tmp_path)

    [envelope] = server.envelopes
    read: Any = email.message_from_bytes(envelope.original_content, policy=SMTPUTF8)
    recipients = ["jo@xn--bcher-kva.example", "al@example.com", "eve@example.com"]
    assert outcome == Delivery("<m1@example.com>", accepted=recipients)
    assert (envelope.mail_from, envelope.rcpt_tos) == ("shop@example.com", recipients)
    assert (read["Subject"], read["Message-ID"], read["Bcc"]) == ("Grüße", "<m1@example.com>", None)
    assert read.get_body().get_content() == ".\r\nGrüße\r\n..\r\n"
    assert next(read.iter_attachments()).get_content() == b"%PDF \x00\xff\n.\n..\n"


def test_an_address_that_is_not_ascii_goes_out_as_smtputf8(server: MailServer) -> None:
    send(server.port, mail(to="山田@例え.jp"))

    assert server.envelopes[0].rcpt_tos == ["山田@xn--r8jz45g.jp"]
    assert "SMTPUTF8" in server.envelopes[0].mail_options


def test_an_address_that_is_not_ascii_needs_a_server_that_takes_it() -> None:
    with MailServer(enable_SMTPUTF8=False) as server, pytest.raises(PermanentError, match="only ASCII addresses"):
        send(server.port, mail(reply_to="山田@example.jp"))

    assert server.envelopes == []


@pytest.mark.parametrize("goodbye", ["500 no", "421 no", "silence"])
def test_trouble_after_the_mail_was_taken_does_not_send_it_again(server: MailServer, goodbye: str) -> None:
    server.answers["QUIT"] = [goodbye]
    started_at = time.monotonic()

    assert send(server.port, smtp_timeout_seconds=60).accepted == ["jo@example.com"]
    assert time.monotonic() - started_at < 30


# --- protection and login --------------------------------------------------------------------


def login_as_jo(
    server: SMTP, session: object, envelope: Envelope, mechanism: str, auth_data: LoginPassword
) -> AuthResult:
    right = isinstance(auth_data, LoginPassword) and auth_data == LoginPassword(b"jo", b"pass word")
    return AuthResult(success=right, handled=False, message=None if right else "535 5.7.8 wrong password")


JO = {"smtp_username": "jo", "smtp_password": "pass word"}
LOGIN = {"authenticator": login_as_jo, "auth_required": True}


def test_a_login_over_starttls_sends_the_mail(authority: trustme.CA, ca_file: str) -> None:
    with MailServer(tls_context=server_tls(authority, "127.0.0.1"), require_starttls=True, **LOGIN) as server:
        send(server.port, smtp_security="starttls", smtp_ca_file=ca_file, **JO)

    assert [envelope.rcpt_tos for envelope in server.envelopes] == [["jo@example.com"]]


@pytest.mark.filterwarnings("ignore:Requiring AUTH:UserWarning")  # aiosmtpd does not see the TLS around it
def test_a_login_over_tls_sends_the_mail(authority: trustme.CA, ca_file: str) -> None:
    with MailServer(tls=server_tls(authority, "127.0.0.1"), auth_require_tls=False, **LOGIN) as server:
        send(server.port, smtp_security="tls", smtp_ca_file=ca_file, **JO)

    assert len(server.envelopes) == 1


def test_a_wrong_password_fails_for_good_with_the_answer_of_the_server(authority: trustme.CA, ca_file: str) -> None:
    with (
        MailServer(tls_context=server_tls(authority, "127.0.0.1"), **LOGIN) as server,
        pytest.raises(PermanentError) as e,
    ):
        send(server.port, smtp_security="starttls", smtp_ca_file=ca_file, smtp_username="jo", smtp_password="x")

    assert str(e.value) == (
        f"mail server 127.0.0.1:{server.port} refused the login: 535 5.7.8 wrong password; "
        "check TASKAPP_SMTP_USERNAME and its password"
    )


def test_a_password_is_never_sent_without_protection(server: MailServer) -> None:
    with pytest.raises(PermanentError, match="set TASKAPP_SMTP_SECURITY to 'starttls' or 'tls'"):
        send(server.port, **JO)

    assert server.sessions == 0


def test_a_server_that_lost_its_starttls_gets_neither_password_nor_mail(server: MailServer) -> None:
    with pytest.raises(PermanentError, match="check TASKAPP_SMTP_SECURITY"):
        send(server.port, smtp_security="starttls", **JO)

    assert server.envelopes == []


@pytest.mark.parametrize("security", ["tls", "starttls"])
@pytest.mark.parametrize("names", [("127.0.0.1",), ("mail.example.com",)])
def test_a_server_with_a_certificate_we_do_not_trust_gets_no_mail(
    authority: trustme.CA, ca_file: str, security: str, names: tuple[str, ...]
) -> None:
    """One has the right name from an unknown authority, the other the wrong name from a known one."""
    issuer = authority if names == ("mail.example.com",) else trustme.CA()
    context = server_tls(issuer, *names)
    options: dict[str, Any] = {"tls": context} if security == "tls" else {"tls_context": context}

    with (
        MailServer(**options) as server,
        pytest.raises(PermanentError, match=r"is not trusted: .*TASKAPP_SMTP_CA_FILE"),
    ):
        send(server.port, smtp_security=security, smtp_ca_file=ca_file)

    assert server.envelopes == []


def test_tls_towards_a_plain_server_fails_for_good(server: MailServer) -> None:
    with pytest.raises(PermanentError, match=r"does not speak TLS as configured: .*; check TASKAPP_SMTP_SECURITY"):
        send(server.port, smtp_security="tls")


def test_a_ca_file_that_cannot_be_read_is_named(server: MailServer, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()

    for name in ("gone.pem", "empty.pem"):
        with pytest.raises(InvalidSetting, match=f"setting TASKAPP_SMTP_CA_FILE cannot be '.*{name}'"):
            send(server.port, smtp_security="tls", smtp_ca_file=tmp_path / name)


# --- refused ---------------------------------------------------------------------------------


def test_who_is_refused_is_listed_and_the_others_get_the_mail(server: MailServer) -> None:
    server.answers = {"al@example.com": ["550 5.1.1 no such user"], "cy@example.com": ["451 later"]}

    outcome = send(server.port, mail(to=["jo@example.com", "al@example.com", "cy@example.com"]))

    assert outcome.accepted == server.envelopes[0].rcpt_tos == ["jo@example.com"]
    assert outcome.refused == [Refusal(recipient="al@example.com", code=550, answer="5.1.1 no such user")]
    assert outcome.put_off == [Refusal(recipient="cy@example.com", code=451, answer="later")]


def test_a_server_that_closes_between_recipients_has_taken_nothing(server: MailServer) -> None:
    def closing(connection: socket.socket) -> None:
        talk(connection, "250 me", "250 ok", "250 ok", "550 no", "421 too busy")

    with scripted(closing) as port:
        outcome = send(port, mail(to=["a@x.org", "b@x.org", "c@x.org", "d@x.org"]))

    assert outcome.accepted == []
    assert [one.recipient for one in outcome.refused] == ["b@x.org"]
    assert [(one.recipient, one.code) for one in outcome.put_off] == [
        ("a@x.org", 421),
        ("c@x.org", 421),
        ("d@x.org", 421),
    ]


@pytest.mark.usefixtures("app")
def test_a_mail_nobody_may_have_fails_for_good(server: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.answers = {"jo@example.com": ["550 no"], "al@example.com": ["553 never"]}
    monkeypatch.setattr(sys.modules[TASK_TYPE], "get_settings", lambda: settings(server.port))

    with pytest.raises(PermanentError) as caught:
        task_type()(mail(to=["jo@example.com", "al@example.com"]))

    assert str(caught.value) == (
        "the mail server refused every recipient: 'jo@example.com' (550 no), 'al@example.com' (553 never); correct them"
    )


@pytest.mark.parametrize(
    ("command", "answer", "sentence"),
    [
        ("MAIL", "553 not you", "refused the sender 'shop@example.com': 553 not you; use another sender"),
        ("DATA", "554 spam", "refused the mail: 554 spam; correct it"),
    ],
)
def test_a_refusal_of_the_whole_mail_fails_for_good(
    server: MailServer, command: str, answer: str, sentence: str
) -> None:
    server.answers[command] = [answer]

    with pytest.raises(PermanentError) as caught:
        send(server.port)

    assert str(caught.value) == f"mail server 127.0.0.1:{server.port} {sentence}"


# --- later -----------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["MAIL", "DATA"])
def test_a_server_that_says_later_is_tried_later(server: MailServer, command: str) -> None:
    server.answers[command] = ["451 4.7.1 greylisted"]

    with pytest.raises(TransientError, match=r"deferred the mail: 451 4\.7\.1 greylisted$"):
        send(server.port)


def test_a_server_that_is_not_there_is_tried_later() -> None:
    with pytest.raises(TransientError, match=r"cannot be reached: .*refused"):
        send(free_port())


def test_a_name_that_cannot_be_looked_up_is_tried_later() -> None:
    with pytest.raises(TransientError, match="cannot be reached"):
        send(25, smtp_host="mail.invalid")


@pytest.mark.parametrize("greets", [False, True])
def test_a_silent_server_is_given_up_after_the_timeout(greets: bool) -> None:
    def silent(connection: socket.socket) -> None:
        if greets:
            connection.sendall(b"220 ready\r\n")
        while connection.recv(4096):
            pass

    started_at = time.monotonic()
    with scripted(silent) as port, pytest.raises(TransientError, match="timed out"):
        send(port, smtp_timeout_seconds=0.3)

    assert time.monotonic() - started_at < 15


@pytest.mark.parametrize(
    "replies", [[], ["250 me"], ["250 me", "250 ok", "250 ok"], ["250 me", "250 ok", "250 ok", "354 go"]]
)
def test_a_server_that_dies_on_the_way_is_tried_later(replies: list[str]) -> None:
    """The last one dies in the middle of the mail."""
    large = mail(text="x" * 2_000_000)

    with scripted(lambda connection: talk(connection, *replies)) as port, pytest.raises(TransientError):
        send(port, large)


def test_something_that_is_no_mail_server_fails_for_good() -> None:
    with (
        scripted(lambda connection: connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port,
        pytest.raises(PermanentError, match="refused the mail: -1 "),
    ):
        send(port)


# --- through a worker ------------------------------------------------------------------------


@pytest.mark.usefixtures("app")
def test_a_recipient_put_off_gets_the_mail_in_a_retry_and_the_others_only_once(
    server: MailServer, worker: Callable[..., Process]
) -> None:
    server.answers = {"al@example.com": ["550 no"], "cy@example.com": ["451 later", "250 OK"]}
    worker(
        TASKAPP_INCLUDE=TASK_TYPE,
        TASKAPP_SMTP_HOST="127.0.0.1",
        TASKAPP_SMTP_PORT=str(server.port),
        TASKAPP_MAIL_FROM="shop@example.com",
    )

    sent = (
        task_type()
        .delay(mail(to=["jo@example.com", "al@example.com", "cy@example.com"], dedup_id="order-7"))
        .get(timeout=60)
    )

    assert sent == {
        "message_id": "<order-7@example.com>",
        "accepted": ["jo@example.com", "cy@example.com"],
        "refused": [{"recipient": "al@example.com", "code": 550, "answer": "no"}],
    }
    assert [envelope.rcpt_tos for envelope in server.envelopes] == [["jo@example.com"], ["cy@example.com"]]


@pytest.mark.usefixtures("app")
def test_a_mail_put_off_arrives_in_a_retry_under_the_same_message_id(
    server: MailServer, worker: Callable[..., Process]
) -> None:
    server.answers["DATA"] = ["451 later", ""]
    worker(TASKAPP_INCLUDE=TASK_TYPE, TASKAPP_SMTP_HOST="127.0.0.1", TASKAPP_SMTP_PORT=str(server.port))

    task = task_type().delay(mail())

    assert task.get(timeout=60)["message_id"] == f"<{task.id}@localhost>"
    assert f"Message-ID: <{task.id}@localhost>".encode() in server.envelopes[0].original_content


# --- the mail sink of the demo ---------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_mail_sink_keeps_mails_as_files_and_stops_quietly(tmp_path: Path, number: int) -> None:
    mails = tmp_path / "new" / "mails"
    argv = [sys.executable, "-m", "taskapp.demo.mail_sink", "--port", "0", "--directory", str(mails)]
    sink = Process(argv, tmp_path / "log", clean_environment())
    try:
        line = eventually(
            lambda: re.search(r"^mail sink listening on 127\.0\.0\.1:(\d+)$", sink.output(), re.MULTILINE)
        )
        for subject in ("first", "second"):
            send(int(line[1]), mail(subject=subject, bcc="eve@example.com"))
        with socket.create_connection(("127.0.0.1", int(line[1]))):
            sink._popen.send_signal(number)
            assert sink.wait() == 0
    finally:
        sink.close()

    read = [email.message_from_bytes(path.read_bytes(), policy=SMTPUTF8) for path in sorted(mails.iterdir())]
    assert sink.output() == line[0] + "\n"
    assert [one["Subject"] for one in read] == ["first", "second"]
    assert read[0].get_all("X-Envelope-To") == ["jo@example.com", "eve@example.com"]


def test_the_mail_sink_says_later_when_its_directory_is_gone(tmp_path: Path) -> None:
    from taskapp.demo.mail_sink import KeepAsFiles

    sink = KeepAsFiles(tmp_path / "mails")
    (tmp_path / "mails").rmdir()
    envelope = Envelope()
    envelope.original_content = b"x"

    answer = asyncio.run(sink.handle_DATA(None, None, envelope))  # type: ignore[arg-type]

    assert answer == "451 cannot keep the mail: No such file or directory"
