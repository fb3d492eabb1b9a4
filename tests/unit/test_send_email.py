from __future__ import annotations

import base64
import email
import re
from datetime import UTC, datetime
from email.header import decode_header, make_header
from email.headerregistry import AddressHeader
from email.message import EmailMessage as ParsedMail
from email.policy import SMTP, SMTPUTF8, compat32, default
from email.utils import getaddresses, parseaddr
from pathlib import Path
from typing import cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from taskapp.errors import PathNotAllowed, PermanentError
from taskapp.tasks.send_email import Attachment, EmailMessage, Refusal, SentEmail
from taskapp.tasks.send_email import message as writing
from taskapp.tasks.send_email.address import MailAddress, check_one_line
from taskapp.tasks.send_email.message import Loaded, load, write
from taskapp.tasks.send_email.model import dedup_id_for
from taskapp.tasks.send_email.run import Delivery

SENDER = MailAddress.parse("Shop <shop@example.com>")
AT = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
HEADERS = {"Date", "From", "To", "Subject", "Message-ID", "MIME-Version", "Content-Type", "Content-Transfer-Encoding"}


def mail(**fields: object) -> EmailMessage:
    return EmailMessage.model_validate({"to": "jo@example.com", "text": "hello", **fields})


def written(message: EmailMessage, attachments: list[Loaded] | None = None) -> bytes:
    return write(message, SENDER, "<m1@example.com>", attachments or [], AT)


def parsed(content: bytes) -> ParsedMail:
    return cast(ParsedMail, email.message_from_bytes(content, policy=SMTPUTF8))


def mailboxes(message: ParsedMail, field: str) -> list[tuple[str, str]]:
    header = message[field]
    assert isinstance(header, AddressHeader)
    return [(one.display_name, one.addr_spec) for one in header.addresses]


# --- addresses -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name", "spec"),
    [
        ("jo@example.com", "", "jo@example.com"),
        ("  jo@example.com ", "", "jo@example.com"),
        ("<jo@example.com>", "", "jo@example.com"),
        ("Jo Doe <jo@example.com>", "Jo Doe", "jo@example.com"),
        ("Dr. Jo Doe <jo@EXAMPLE.com>", "Dr. Jo Doe", "jo@example.com"),
        ('"Doe, Jo" <jo@example.com>', "Doe, Jo", "jo@example.com"),
        ("O'Brien & Co. <jo@example.com>", "O'Brien & Co.", "jo@example.com"),
        ("Jo (at work) <jo@example.com>", "Jo", "jo@example.com"),
        (r'"Doe, \"Jo\"" <jo@example.com>', 'Doe, "Jo"', "jo@example.com"),
        ('"a <b> c" <jo@example.com>', "a <b> c", "jo@example.com"),
        ("Jürgen <j@Bücher.example>", "Jürgen", "j@xn--bcher-kva.example"),
        ("山田 <山田@例え.jp>", "山田", "山田@xn--r8jz45g.jp"),
        ("jo+tag/x=y@mail.example.com", "", "jo+tag/x=y@mail.example.com"),
        ("root@localhost", "", "root@localhost"),
    ],
)
def test_an_address_is_read(text: str, name: str, spec: str) -> None:
    address = MailAddress.parse(text)

    assert (address.name, address.spec) == (name, spec)


@pytest.mark.parametrize(
    "text",
    [
        "", "jo", "@example.com", "jo@", "jo@@example.com", "jo@ example.com", "j o@example.com", ".jo@example.com",
        "jo.@example.com", "jo@-example.com", "jo@example..com", "jo@example.com.", "jo@example_com", "jo@[127.0.0.1]",
        "a@example.com, b@example.com", "Jo <jo@example.com", "Jo <jo@example.com> x", "jo@" + "a" * 64 + ".com",
        "<a@b.example>, <eve@x.example>", "Jo <a@b.example>, Eve <eve@x.example>", "Doe, Jo <jo@example.com>",
        "a@b.example <eve@x.example>", "team: a@b.example, eve@x.example;", "team: a@b.example;", "team:;",
        "x; y <jo@example.com>", "Jo <<jo@example.com>", "<jo@example.com>,", "<jo@example.com>;", ",<jo@example.com>",
        ",Jo <jo@example.com>", "<@b.example:jo@example.com>", "<@b.example,@c.example:jo@example.com>",
        "jo@example.com (eve)", "<jo (x) @example.com>", '"jo x"@example.com', 'a"b <jo@example.com>',
        "Jo:D <jo@example.com>", "a <b> c <jo@example.com>", "(" * 399, "<" * 399,
        "ü" * 33 + "@example.com", "jo@exa\u00admple .com", "j\u200bo@example.com",
    ],
)  # fmt: skip
def test_what_is_no_address_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a mail address; write 'jo@example\.com'") as caught:
        MailAddress.parse(text)

    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("separator", ["\n", "\r", "\r\n", "\0", "\x0b", "\x1c", "\x85", "\u2028", "\u2029", "\t"])
@pytest.mark.parametrize(
    "pattern", ["Jo{}Bcc: eve@example.com <jo@example.com>", "jo@example.com{}RCPT TO:<eve@x.com>"]
)
def test_no_line_can_be_added_through_an_address(pattern: str, separator: str) -> None:
    with pytest.raises(ValueError, match="contains the control character"):
        MailAddress.parse(pattern.format(separator))


PARTS = ["a@b.example", "eve@x.example", "<", ">", ",", ";", ":", '"', "\\", "(", ")", " ", "Jo", "@", ".", "[", "]"]


@given(st.lists(st.sampled_from(PARTS), max_size=12).map("".join))
@example("a@b.exampleJo")  # a domain is written in small letters
def test_whoever_reads_the_header_reads_the_one_address_that_the_server_gets(text: str) -> None:
    try:
        address = MailAddress.parse(text)
    except ValueError:
        return

    message = email.message_from_string(f"To: {address.header}\n\n", policy=default)
    assert [each.addr_spec for each in message["To"].addresses] == [address.spec]
    assert getaddresses([address.header]) == [(address.name, address.spec)]
    assert f"{address.local}@" in text
    other = {"a@b.example", "eve@x.example"} - {address.spec}
    rest = text.casefold().replace(address.spec.casefold(), "", 1)
    assert not any(each in rest for each in other) or '"' in text or "(" in text


def test_an_encoded_word_is_refused_for_it_may_decode_to_a_line_break() -> None:
    with pytest.raises(ValueError, match="contains an encoded word; write plain text, it is encoded for you"):
        MailAddress.parse("=?utf-8?q?a=0ABcc:_eve=40example.com?= <jo@example.com>")


@given(st.text())
def test_whatever_passes_as_one_line_is_one_line(text: str) -> None:
    try:
        check_one_line(text)
    except ValueError:
        return
    assert len(text.splitlines()) <= 1


# --- the payload -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"to": []}, "a mail needs a recipient; give 'to', 'cc' or 'bcc'"),
        ({"text": None}, "a mail needs a body; give 'text', 'html' or both"),
        ({"subject": "a\nBcc: eve@example.com"}, r"contains the control character '\n'; remove it"),
        ({"subject": "x" * 901}, "at most 900 characters"),
        ({"to": ["jo@example.com", "nobody"]}, "'nobody' is not a mail address"),
        ({"sender": "nobody"}, "'nobody' is not a mail address"),
        ({"dedup_id": "a>\r\nBcc: eve@example.com"}, "should match pattern"),
        ({"dedup_id": "a\n"}, "should match pattern"),
        ({"subjekt": "x"}, "Extra inputs are not permitted"),
        ({"to": ["jo@example.com"] * 600, "cc": ["al@example.com"] * 401}, "at most 1000 recipients"),
        ({"text": "\ud800"}, "the text has a lone surrogate at position 0; remove it"),
        ({"attachments": [{}]}, "an attachment needs either 'path' or 'content_base64'; give exactly one"),
        ({"attachments": [{"path": "a", "content_base64": ""}]}, "give exactly one"),
        ({"attachments": [{"content_base64": "YQ=="}]}, "inline content needs a name; give 'filename'"),
        ({"attachments": [{"content_base64": "Y", "filename": "a"}]}, "'content_base64' is not valid Base64"),
        ({"attachments": [{"path": "a", "filename": "../a"}]}, "give a plain file name such as 'report.pdf'"),
        ({"attachments": [{"path": "a", "filename": "a\r\nX: y"}]}, "contains the control character"),
        ({"attachments": [{"path": "a", "content_type": "text/plain; charset=x"}]}, "without parameters"),
        ({"attachments": [{"path": "a", "content_type": "message/rfc822"}]}, "use 'application/octet-stream'"),
    ],
)
def test_a_payload_that_makes_no_mail_is_refused(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(problem)):
        mail(**fields)


def test_a_payload_survives_its_way_through_json() -> None:
    message = mail(
        to='"Jürgen, M" <j@bücher.example>', html="<p>", dedup_id="order-7",
        attachments=[{"content_base64": "YQ==", "filename": "ä.txt"}],
        earlier=SentEmail(message_id="<m>", accepted=["a@b"], refused=[Refusal(recipient="b@c", code=550, answer="")]),
    )  # fmt: skip

    assert EmailMessage.model_validate(message.model_dump(mode="json")) == message


def test_texts_and_contents_stay_out_of_the_representation() -> None:
    message = mail(text="secret one", html="secret two", attachments=[{"content_base64": "YQ==", "filename": "a"}])

    assert "secret" not in repr(message)
    assert "YQ==" not in repr(message)


def test_every_recipient_gets_one_mail_however_often_named() -> None:
    message = mail(
        to=["Jo <jo@example.com>", "jo@EXAMPLE.com"], cc="al@example.com", bcc=["jo@example.com", "cy@x.org"]
    )

    assert message.open_recipients() == ["jo@example.com", "al@example.com", "cy@x.org"]


def test_who_was_settled_by_an_earlier_run_is_left_out() -> None:
    message = mail(
        to=["jo@example.com", "al@example.com", "cy@example.com"],
        earlier=SentEmail(
            message_id="<m>",
            accepted=["jo@example.com"],
            refused=[Refusal(recipient="al@example.com", code=550, answer="no")],
        ),
    )

    assert message.open_recipients() == ["cy@example.com"]


def test_outcomes_of_several_runs_add_up() -> None:
    no = Refusal(recipient="b@x.org", code=550, answer="no")
    first = Delivery("<m>", accepted=["a@x.org"], refused=[no], put_off=[]).after(None)

    assert Delivery("<m>", accepted=["c@x.org"]).after(first) == SentEmail(
        message_id="<m>", accepted=["a@x.org", "c@x.org"], refused=[no]
    )


@pytest.mark.parametrize("task_id", ["0b7e1b9c-2e57-4c3e-b0ae-1b6ab6d10b6a", "a b>\r\n", "ü", "x" * 300, ".a", "a..b"])
def test_the_dedup_id_of_a_task_is_always_the_same_and_fits_a_header(task_id: str) -> None:
    assert dedup_id_for(task_id) == dedup_id_for(task_id)
    mail(dedup_id=dedup_id_for(task_id))


def test_calls_outside_of_a_task_are_different_mails() -> None:
    assert dedup_id_for(None) != dedup_id_for(None)


# --- the message -----------------------------------------------------------------------------


def test_a_plain_mail_reads_back_as_it_was_meant() -> None:
    read = parsed(written(mail(subject="Order 7", text="Thank you.\nBye\n", reply_to="help@example.com")))

    assert mailboxes(read, "From") == [("Shop", "shop@example.com")]
    assert mailboxes(read, "To") == [("", "jo@example.com")]
    assert mailboxes(read, "Reply-To") == [("", "help@example.com")]
    assert (read["Subject"], read["Message-ID"]) == ("Order 7", "<m1@example.com>")
    assert read["Date"].datetime == AT
    assert read.get_content() == "Thank you.\r\nBye\r\n"


def test_bcc_appears_nowhere_in_the_mail() -> None:
    content = written(mail(bcc="Eve Hidden <hidden@example.com>"))

    assert b"idden" not in content
    assert b"bcc" not in content.lower()


def test_text_and_html_are_alternatives_and_html_can_stand_alone() -> None:
    both = parsed(written(mail(text="plain", html="<b>bold</b>")))
    alone = parsed(written(mail(text=None, html="<b>bold</b>")))

    assert both.get_content_type() == "multipart/alternative"
    assert [part.get_content_type() for part in both.iter_parts()] == ["text/plain", "text/html"]
    assert (alone.get_content_type(), alone.get_content().strip()) == ("text/html", "<b>bold</b>")


def test_attachments_arrive_byte_for_byte_with_their_names() -> None:
    contents = {"bericht-größe.pdf": bytes(range(256)) * 50, "zahlen.csv": b"a,b\r\n1,2\n", "empty.bin": b""}
    attachments = [Loaded(name, "application/pdf", content) for name, content in contents.items()]

    read = parsed(written(mail(html="<p>x"), attachments))

    assert read.get_content_type() == "multipart/mixed"
    assert {part.get_filename(): part.get_payload(decode=True) for part in read.iter_attachments()} == contents


@pytest.mark.parametrize(
    ("filename", "media_type"),
    [("a.pdf", "application/pdf"), ("a.csv", "text/csv"), ("a.tar.gz", "application/octet-stream"),
     ("a.eml", "application/octet-stream"), ("a", "application/octet-stream")],
)  # fmt: skip
def test_the_type_of_an_attachment_is_guessed_from_its_name(filename: str, media_type: str) -> None:
    assert Attachment(path=f"/files/{filename}").media_type == media_type


def test_no_line_is_longer_than_mail_servers_take() -> None:
    content = written(mail(to=["é" * 60 + " <jo@example.com>"] * 500, subject="ü " * 450, text="x" * 100_000))

    assert max(len(line) for line in content.split(b"\r\n")) <= 998
    assert parsed(content)["Subject"].split() == ["ü"] * 450


def test_a_mail_is_seven_bit_unless_an_address_is_not() -> None:
    assert written(mail(to="Jürgen <j@bücher.example>", subject="Grüße", text="Grüße", html="ä")).isascii()
    assert "山田@xn--r8jz45g.jp".encode() in written(mail(to="山田@例え.jp"))


NAMES = st.text(max_size=60)


@given(st.lists(NAMES, min_size=1, max_size=8), NAMES, st.text())
@example(["Nachname-äöü-sehr-lang, Vorname"] * 6, "s", "t")
@example(["evil\\", '"', '\\"', 'a\\\\"'], "=", "\r")
def test_whatever_names_and_subjects_hold_they_read_back_and_add_no_header(
    names: list[str], subject: str, text: str
) -> None:
    try:
        to = ['"{}" <jo@example.com>'.format(name.replace("\\", "\\\\").replace('"', '\\"')) for name in names]
        message = mail(to=to, subject=subject, text=text)
    except ValidationError:
        return

    read = email.message_from_bytes(written(message), policy=SMTP)

    assert set(read.keys()) == HEADERS
    assert [spec for _, spec in mailboxes(cast(ParsedMail, read), "To")] == ["jo@example.com"] * len(names)


@given(st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=60))
def test_a_name_reads_back_unchanged(name: str) -> None:
    try:
        message = mail(to='"{}" <jo@example.com>'.format(name.replace("\\", "\\\\").replace('"', '\\"')))
    except ValidationError:
        assert "=?" in name
        return

    # The parser of the email package's newer half puts blanks into long names; its older half does not.
    shown, spec = parseaddr(email.message_from_bytes(written(message), policy=compat32)["To"])
    assert (str(make_header(decode_header(shown))), spec) == (name, "jo@example.com")


# --- attachments from files ------------------------------------------------------------------


def test_a_file_below_an_allowed_directory_is_attached(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_bytes(b"<p>")

    [one] = load([Attachment(path=str(tmp_path / "report.html"))], [tmp_path])

    assert one == Loaded("report.html", "text/html", b"<p>")


def test_a_file_elsewhere_is_not(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "link").symlink_to(tmp_path / "secret")

    for path in (tmp_path / "secret", tmp_path / "files" / ".." / "secret", tmp_path / "files" / "link"):
        with pytest.raises(PathNotAllowed):
            load([Attachment(path=str(path))], [tmp_path / "files"])


def test_a_file_that_is_not_there_and_a_folder_fail_for_good(tmp_path: Path) -> None:
    for path in (tmp_path / "gone.pdf", tmp_path):
        with pytest.raises(PermanentError):
            load([Attachment(path=str(path), filename="a.pdf")], [tmp_path])


def test_attachments_count_together_towards_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "MAX_ATTACHMENT_BYTES", 1_000)
    (tmp_path / "a.bin").write_bytes(b"x" * 600)
    first = Attachment(path=str(tmp_path / "a.bin"))
    fits = Attachment(content_base64=base64.b64encode(b"x" * 400).decode(), filename="b.bin")
    too_large = Attachment(content_base64=base64.b64encode(b"x" * 401).decode(), filename="b.bin")

    assert [len(one.content) for one in load([first, fits], [tmp_path])] == [600, 400]
    with pytest.raises(PermanentError) as caught:
        load([first, too_large], [tmp_path])
    assert str(caught.value) == "attachments up to 'b.bin' take more than 1000 bytes; send a link instead"
