"""A mailbox for development: an SMTP server that keeps every mail, and a page that shows them.

    python -m deploy.mailbox --smtp 127.0.0.1:1025 --page 127.0.0.1:8025

The newest mails are kept in memory. Nothing is sent on. GET / is the page, GET /mails the mails as JSON. It has no
authentication: keep it on loopback, and never use it in production.
"""

import argparse
import asyncio
import html
import json
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from typing import Any

MAX_MAILS = 200
MAX_BYTES = 1_000_000
MAX_LINE = 4096
IDLE_SECONDS = 60.0
MAX_CONNECTIONS = 64
# The HTML of a mail is shown without scripts and without requests to anywhere.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-src 'self'"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Mailbox</title><meta http-equiv="refresh" content="5"><style>
body {{ font-family: Helvetica, Arial, sans-serif; margin: 24px; max-width: 960px; }}
summary {{ cursor: pointer; padding: 8px 0; }} time {{ color: #71717a; }}
iframe {{ border: 1px solid #d4d4d8; height: 480px; width: 100%; }}
pre {{ background: #f4f4f5; overflow-wrap: anywhere; padding: 12px; white-space: pre-wrap; }}
</style></head><body><h1>Mailbox</h1><p>{count} mails, the newest first. Nothing is sent on.</p>{mails}</body></html>"""
MAIL = """<details><summary><time>{at}</time> <b>{subject}</b> to {to}</summary>
<iframe sandbox srcdoc="{html}"></iframe><pre>{text}</pre></details>"""


@dataclass(frozen=True)
class Mail:
    """A mail as it was received."""

    at: datetime
    sender: str
    recipients: tuple[str, ...]
    message: EmailMessage

    def part(self, kind: str) -> str:
        """Return the body of this kind: `plain` or `html`."""
        body = self.message.get_body((kind,))
        return "" if body is None else str(body.get_content())

    def to_dict(self) -> dict[str, Any]:
        """Return it for mails."""
        return {
            "at": self.at.isoformat(),
            "from": self.sender,
            "to": list(self.recipients),
            "subject": str(self.message["Subject"]),
            "message_id": str(self.message["Message-ID"]),
            "text": self.part("plain"),
            "html": self.part("html"),
        }


class Mailbox:
    """The mails, and the two servers."""

    def __init__(self) -> None:
        self.mails: deque[Mail] = deque(maxlen=MAX_MAILS)
        self._places = asyncio.Semaphore(MAX_CONNECTIONS)

    async def serve(self, smtp: tuple[str, int], page: tuple[str, int]) -> None:
        """Serve until the process ends."""
        servers = [
            await asyncio.start_server(self._limited(self._receive), *smtp, limit=MAX_LINE),
            await asyncio.start_server(self._limited(self._show), *page, limit=MAX_LINE),
        ]
        addresses = [server.sockets[0].getsockname() for server in servers]
        print(f"mails are received at {addresses[0][0]}:{addresses[0][1]}", flush=True)
        print(f"mails are shown at http://{addresses[1][0]}:{addresses[1][1]}", flush=True)
        await asyncio.gather(*(server.serve_forever() for server in servers))

    def _limited(self, handle: Any) -> Any:
        async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                async with self._places:
                    await handle(reader, writer)
            except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError):
                pass  # a client that is gone, silent, or does not speak the protocol
            finally:
                writer.close()

        return run

    async def _receive(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sender, recipients = "", list[str]()
        await _reply(writer, "220 mailbox")
        while line := await asyncio.wait_for(reader.readline(), IDLE_SECONDS):
            command, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
            match command.upper():
                case "EHLO":
                    await _reply(writer, f"250-mailbox\r\n250-8BITMIME\r\n250 SIZE {MAX_BYTES}")
                case "MAIL":
                    sender, recipients = _address(rest), []
                    await _reply(writer, "250 OK")
                case "RCPT":
                    recipients.append(_address(rest))
                    await _reply(writer, "250 OK")
                case "DATA":
                    await _reply(writer, "354 end with a dot")
                    content = await self._content(reader)
                    message: Any = message_from_bytes(content, policy=default)
                    self.mails.appendleft(Mail(datetime.now(UTC), sender, tuple(recipients), message))
                    await _reply(writer, "250 OK")
                case "HELO" | "RSET" | "NOOP":
                    await _reply(writer, "250 OK")
                case "QUIT":
                    await _reply(writer, "221 bye")
                    return
                case _:
                    await _reply(writer, "502 unknown")

    @staticmethod
    async def _content(reader: asyncio.StreamReader) -> bytes:
        lines, size = [], 0
        while (line := await asyncio.wait_for(reader.readline(), IDLE_SECONDS)) != b".\r\n":
            size += len(line)
            if not line or size > MAX_BYTES:
                raise ValueError("the mail is too large, or does not end")
            lines.append(line[1:] if line.startswith(b"..") else line)
        return b"".join(lines)

    async def _show(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), IDLE_SECONDS)
        path = head.split(b" ", 2)[1]
        if path == b"/mails":
            kind, body = "application/json", json.dumps([mail.to_dict() for mail in self.mails])
        else:
            kind, body = "text/html; charset=utf-8", self._page()
        content = body.encode()
        writer.write(
            f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n"
            f"Content-Security-Policy: {POLICY}\r\nConnection: close\r\n\r\n".encode()
            + content
        )
        await writer.drain()

    def _page(self) -> str:
        mails = "".join(
            MAIL.format(
                at=f"{mail.at:%H:%M:%S}",
                subject=html.escape(str(mail.message["Subject"])),
                to=html.escape(", ".join(mail.recipients)),
                html=html.escape(mail.part("html")),
                text=html.escape(mail.part("plain")),
            )
            for mail in self.mails
        )
        return PAGE.format(count=len(self.mails), mails=mails)


async def _reply(writer: asyncio.StreamWriter, text: str) -> None:
    writer.write(f"{text}\r\n".encode())
    await writer.drain()


def _address(rest: str) -> str:
    return rest.partition("<")[2].partition(">")[0]


def _endpoint(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m deploy.mailbox", description=__doc__)
    parser.add_argument("--smtp", type=_endpoint, default=("127.0.0.1", 1025), help="host:port of the SMTP server")
    parser.add_argument("--page", type=_endpoint, default=("127.0.0.1", 8025), help="host:port of the page")
    arguments = parser.parse_args()
    try:
        asyncio.run(Mailbox().serve(arguments.smtp, arguments.page))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
