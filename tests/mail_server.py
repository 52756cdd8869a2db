"""An SMTP server for tests: `python -m tests.mail_server`. It prints its port, then each mail as a line of JSON.

The local part of a recipient says what becomes of a mail: `refused` 550, `deferred` 451, `lost` is taken, but the
connection ends without a reply, `slow` is taken after some seconds.
"""

import asyncio
import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import default

LOST, SLOW = "lost", "slow"
SLOW_SECONDS = 4
REPLIES = {"refused": "550 5.1.1 no such mailbox", "deferred": "451 4.7.1 greylisted"}


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802  (aiosmtpd's name)
        reply = REPLIES.get(address.partition("@")[0])
        if reply:
            return reply
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802  (aiosmtpd's name)
        if envelope.rcpt_tos[0].startswith(SLOW):
            await asyncio.sleep(SLOW_SECONDS)
        content = envelope.content.decode("utf-8", "surrogateescape")
        print(json.dumps({"from": envelope.mail_from, "to": envelope.rcpt_tos, "content": content}), flush=True)
        if envelope.rcpt_tos[0].startswith(LOST):
            server.transport.abort()
        return "250 OK"


def main():
    from aiosmtpd.smtp import SMTP

    async def serve():
        server = await asyncio.get_running_loop().create_server(lambda: SMTP(Handler()), "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(serve())


class MailServer:
    """The mails that were received, in `mails`: dicts with `from`, `to` and the parsed `message`."""

    def __init__(self, process):
        self.port, self.mails = int(process.stdout.readline()), []
        self._process = process
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self._process.stdout:
            mail = json.loads(line)
            content = mail.pop("content").encode("utf-8", "surrogateescape")
            self.mails.append(mail | {"message": message_from_bytes(content, policy=default)})

    def to(self, address):
        return [mail["message"] for mail in self.mails if mail["to"] == [address]]


@contextmanager
def mail_server():
    command = [sys.executable, "-W", "ignore", "-m", "tests.mail_server"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield MailServer(process)
    finally:
        process.kill()  # its output, which a thread reads, then ends
        process.wait()


if __name__ == "__main__":
    main()
