"""The process of the receivers of a run: an endpoint of webhooks for each customer, and a mail server.

The parent sends `{"path": "/1", "secret": "whsec_..."}` as a line for each endpoint. The process prints its two ports,
then a line of JSON for each webhook and each mail that it has received. It ends with its input. It runs on the clock of
the services, because the library that verifies the signatures refuses old timestamps.

Some requests and mails fail. A `lost` one is taken, but its sender gets no reply.
"""

import argparse
import asyncio
import hashlib
import json
import random
import re
import sys
from email import message_from_bytes
from email.policy import default

from aiosmtpd.smtp import SMTP
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

ACCEPTED, FAILED, SLOW, LOST = "accepted", "failed", "slow", "lost"
# The share of each behaviour; the rest is accepted at once.
WEBHOOKS = ((FAILED, 0.10), (SLOW, 0.05), (LOST, 0.01))
MAILS = ((FAILED, 0.03), (SLOW, 0.03), (LOST, 0.01))
SLOW_SECONDS = (0.2, 2.0)
STATUS_LINES = {200: "200 OK", 400: "400 Bad Request", 404: "404 Not Found", 500: "500 Internal Server Error"}
END_OF_HEAD = "\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
MAX_BODY_BYTES = 100_000
READ_SECONDS = 30.0
ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def choose(chance, shares):
    """Return a behaviour: each with its share, else ACCEPTED."""
    drawn = chance.random()
    for behaviour, share in shares:
        drawn -= share
        if drawn < 0:
            return behaviour
    return ACCEPTED


def tell(kind, **what):
    """Tell the parent what was received."""
    print(json.dumps({kind: what}), flush=True)


class Endpoints:
    """Verifies and acknowledges webhooks."""

    def __init__(self, chance):
        self.secrets, self._chance = {}, chance

    async def serve(self, reader, writer):
        """Serve one request of one connection."""
        try:
            head, body = await asyncio.wait_for(read_request(reader), READ_SECONDS)
            status = await self._receive(head, body)
            if status:
                writer.write(
                    f"HTTP/1.1 {STATUS_LINES[status]}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode()
                )
                await writer.drain()
        except (OSError, ValueError, EOFError, TimeoutError):
            pass  # the sender is gone; it sends again
        finally:
            writer.close()

    async def _receive(self, head, body):
        """Return the status of the response, None for none."""
        path, headers = parse_head(head)
        secret = self.secrets.get(path)
        if secret is None:
            return 404
        received = {"path": path, "id": headers.get("webhook-id", ""), "digest": hashlib.sha256(body).hexdigest()}
        try:
            content = Webhook(secret).verify(body, headers)
        except WebhookVerificationError as error:
            tell("webhook", **received, error=str(error))
            return 400
        behaviour = choose(self._chance, WEBHOOKS)
        if behaviour == SLOW:
            await asyncio.sleep(self._chance.uniform(*SLOW_SECONDS))
        tell(
            "webhook",
            **received,
            event=content["type"],
            order=content["data"].get("order_id", ""),
            is_accepted=behaviour in {ACCEPTED, SLOW},
        )
        return {FAILED: 500, LOST: None}.get(behaviour, 200)


class Mailbox:
    """The handler of aiosmtpd."""

    def __init__(self, chance):
        self._chance = chance

    async def handle_RCPT(self, _server, _session, envelope, address, _options):  # noqa: N802  (aiosmtpd's name)
        envelope.behaviour = choose(self._chance, MAILS)
        if envelope.behaviour == FAILED:
            return "451 4.7.1 try again later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, _session, envelope):  # noqa: N802  (aiosmtpd's name)
        message = message_from_bytes(envelope.content, policy=default)
        found = ID.search(message.get_body(("plain",)).get_content())
        tell(
            "mail",
            to=envelope.rcpt_tos[0],
            subject=str(message["Subject"]),
            message_id=str(message["Message-ID"]),
            order=found[0] if found else "",
        )
        if envelope.behaviour == SLOW:
            await asyncio.sleep(self._chance.uniform(*SLOW_SECONDS))
        if envelope.behaviour == LOST:
            server.transport.abort()
        return "250 OK"


async def read_request(reader):
    """Return the head and the body of a request."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    length = int(parse_head(head)[1].get("content-length", "0"))
    if length > MAX_BODY_BYTES:
        raise ValueError("the body is too large")
    return head, await reader.readexactly(length)


def parse_head(head):
    """Return the path and the headers, with names in lower case."""
    first, *lines = head.split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return first.split(" ")[1], headers


async def run(seed):
    """Serve until the input ends."""
    endpoints, mailbox = Endpoints(random.Random(seed)), Mailbox(random.Random(seed + 1))
    web = await asyncio.start_server(endpoints.serve, "127.0.0.1", 0, backlog=512)
    mail = await asyncio.get_running_loop().create_server(lambda: SMTP(mailbox), "127.0.0.1", 0)
    ports = [server.sockets[0].getsockname()[1] for server in (web, mail)]
    tell("ports", web=ports[0], mail=ports[1])
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        command = json.loads(line)
        endpoints.secrets[command["path"]] = command["secret"]


def main():
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m qa.chaos.receiver_process", description=__doc__)
    parser.add_argument("seed", type=int)
    asyncio.run(run(parser.parse_args().seed))


if __name__ == "__main__":
    main()
