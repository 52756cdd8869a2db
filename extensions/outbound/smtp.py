"""Sends mails to one SMTP server, and tells whether the server took them.

    client = SmtpClient(SmtpSettings("mail.example.com", 587, security="starttls", user="shop", password="..."))
    client.send("shop@example.com", "ayse@example.com", message)

The sockets are green, and each step has a deadline. A name is resolved in one of eventlet's threads, which also reads
/etc/hosts: the operator has chosen the server, so it may be inside of the network.
"""

import smtplib
import socket
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from typing import Any

import eventlet
from eventlet import tpool
from eventlet.patcher import original

from extensions.outbound.results import MailDeferred, MailRefused, MailUncertain
from extensions.security.production import DEVELOPMENT_MAILBOX

CONNECT_SECONDS = 5.0
STEP_SECONDS = 10.0
"""For each command."""
TOTAL_SECONDS = 20.0
QUIT_SECONDS = 1.0
SECURITIES = ("none", "starttls", "tls")
NO_MAILS = "none"
DEVELOPMENT_PORT = 1025
DEFAULT_PORTS = {"none": 25, "starttls": 587, "tls": 465}

_resolve = original("socket").getaddrinfo


@dataclass(frozen=True, slots=True)
class SmtpSettings:
    """The server, and how to log in. Without a user there is no login."""

    host: str
    port: int
    security: str = "none"
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> "SmtpSettings | None":
        """Return the settings SMTP_*; None if SMTP_HOST is not set, or `none`. Raises ValueError for a wrong one."""
        host = str(config.get("SMTP_HOST") or NO_MAILS).strip()
        if host == NO_MAILS:
            return None
        security = str(config.get("SMTP_SECURITY") or "none")
        if security not in SECURITIES:
            raise ValueError(f"SMTP_SECURITY is {security!r}; it must be one of {', '.join(SECURITIES)}")
        usual = DEVELOPMENT_PORT if host == DEVELOPMENT_MAILBOX else DEFAULT_PORTS[security]
        port = int(config.get("SMTP_PORT") or usual)
        if not 0 < port < 65_536:
            raise ValueError(f"SMTP_PORT is {port}; it must be from 1 to 65535")
        user, password = str(config.get("SMTP_USER") or ""), str(config.get("SMTP_PASSWORD") or "")
        if bool(user) != bool(password):
            raise ValueError("SMTP_USER and SMTP_PASSWORD must both be set, or none of them")
        if user and security == "none" and host not in {"127.0.0.1", "::1", "localhost"}:
            raise ValueError("SMTP_SECURITY is none, and the password would cross the network in clear text")
        return cls(host, port, security, user, password)


class SmtpClient:
    """One object serves all greenlets of a process; each mail has a connection of its own."""

    def __init__(self, settings: SmtpSettings) -> None:
        self._settings = settings
        self._tls = ssl.create_default_context()

    def send(
        self, sender: str, recipient: str, message: EmailMessage, *, before_data: Callable[[], object] = lambda: None
    ) -> None:
        """Send a mail. Raises MailRefused, MailDeferred, or MailUncertain if the server may have taken it.

        Until `before_data()` is called, the server cannot have taken it. What it raises ends the attempt.
        """
        content = message.as_bytes()
        is_handed_over = False
        try:
            with eventlet.Timeout(TOTAL_SECONDS, TimeoutError(f"not sent within {TOTAL_SECONDS:g} s")):
                client = self._connect()
                try:
                    _expect(client.mail(sender))
                    _expect(client.rcpt(recipient))
                    before_data()
                    is_handed_over = True
                    reply = client.data(content)
                    is_handed_over = False
                    _expect(reply)
                finally:
                    _quit(client)
        except smtplib.SMTPResponseException as error:  # also a DATA that was refused before the content
            raise _refusal(error.smtp_code, error.smtp_error) from error
        except (OSError, smtplib.SMTPException) as error:
            kind = MailUncertain if is_handed_over else MailDeferred
            raise kind(f"{type(error).__name__}: {error}") from error

    def _connect(self) -> smtplib.SMTP:
        settings = self._settings
        client = _Smtp(timeout=STEP_SECONDS, local_hostname="localhost")
        try:
            client.open(settings, self._tls if settings.security == "tls" else None)
            client.ehlo_or_helo_if_needed()
            if settings.security == "starttls":
                client.starttls(context=self._tls)
                client.ehlo()
            if settings.user:
                client.login(settings.user, settings.password)
        except BaseException:
            client.close()
            raise
        return client


class _Smtp(smtplib.SMTP):
    """An SMTP client whose name resolution does not block the process."""

    def open(self, settings: SmtpSettings, tls: ssl.SSLContext | None) -> None:
        """Connect, and read the greeting. Raises OSError, SMTPException."""
        self._host, self._tls = settings.host, tls
        code, text = self.connect(settings.host, settings.port)
        _expect((code, text))

    def _get_socket(self, host: str, port: int, _timeout: float) -> socket.socket:
        problem: OSError = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in tpool.execute(_resolve, host, port, 0, socket.SOCK_STREAM):
            connection = socket.socket(family, kind, protocol)
            connection.settimeout(CONNECT_SECONDS)
            try:
                connection.connect(address)
                connection.settimeout(STEP_SECONDS)
                return self._tls.wrap_socket(connection, server_hostname=self._host) if self._tls else connection
            except OSError as error:
                connection.close()
                problem = error
        raise problem


def _expect(reply: tuple[int, bytes]) -> None:
    if not 200 <= reply[0] < 300:
        raise smtplib.SMTPResponseException(*reply)


def _refusal(code: int, text: bytes | str) -> Exception:
    words = text.decode(errors="replace") if isinstance(text, bytes) else text
    return (MailRefused if 500 <= code < 600 else MailDeferred)(f"{code} {words}"[:300])


def _quit(client: smtplib.SMTP) -> None:
    try:
        with eventlet.Timeout(QUIT_SECONDS, False):
            client.quit()
    except (OSError, smtplib.SMTPException):
        pass
    finally:
        client.close()
