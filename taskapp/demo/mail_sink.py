"""A mail server for the demo and development that stores every mail as a file and delivers none.

    python -m taskapp.demo.mail_sink --port 0 --directory mails

prints ``mail sink listening on 127.0.0.1:<port>`` once it accepts mail.
"""

from __future__ import annotations

import asyncio
import signal
import time
import uuid
from functools import partial
from pathlib import Path

import click
from aiosmtpd.smtp import SMTP, Envelope, Session

LOOPBACK = "127.0.0.1"
MAX_MAIL_BYTES = 64 * 1_048_576


class KeepAsFiles:
    """Stores each mail as one ``.eml`` file in ``directory``, completely or not at all.

    The files sort in order of arrival. The envelope's sender and recipients are added at the top as
    ``X-Envelope-From`` and ``X-Envelope-To``, because they may differ from those in the mail.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: ARG002, N802
        """Store the mail; answer 451 (try later) if writing fails."""
        name = f"{time.time_ns()}-{uuid.uuid4().hex[:8]}.eml"
        try:
            self._keep(name, envelope)
        except OSError as error:
            return f"451 cannot keep the mail: {error.strerror}"
        return f"250 kept as {name}"

    def _keep(self, name: str, envelope: Envelope) -> None:
        head = [f"X-Envelope-From: {envelope.mail_from}", *(f"X-Envelope-To: {one}" for one in envelope.rcpt_tos)]
        content = envelope.original_content or b""
        unfinished = self.directory / f".{name}.unfinished"
        try:
            unfinished.write_bytes("".join(f"{line}\r\n" for line in head).encode() + content)
            unfinished.replace(self.directory / name)
        finally:
            unfinished.unlink(missing_ok=True)


async def serve(port: int, directory: Path) -> None:
    """Accept mail on loopback until SIGTERM or SIGINT; port 0 picks a free one."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    new_session = partial(
        SMTP,
        KeepAsFiles(directory),
        hostname="localhost",
        ident="taskapp mail sink",
        data_size_limit=MAX_MAIL_BYTES,
        enable_SMTPUTF8=True,
    )
    server = await loop.create_server(new_session, LOOPBACK, port)
    async with server:
        click.echo(f"mail sink listening on {LOOPBACK}:{server.sockets[0].getsockname()[1]}")
        await stop.wait()


@click.command()
@click.option("--port", default=1025, show_default=True, type=click.IntRange(0, 65_535), help="0 picks a free one.")
@click.option(
    "--directory", required=True, type=click.Path(path_type=Path, file_okay=False), help="Where to store mail."
)
def main(*, port: int, directory: Path) -> None:
    """Store every mail sent to this port of 127.0.0.1 as a file."""
    try:
        asyncio.run(serve(port, directory))
    except OSError as error:
        raise click.ClickException(f"cannot receive mail on port {port} into {str(directory)!r}: {error}") from error


if __name__ == "__main__":
    main()
