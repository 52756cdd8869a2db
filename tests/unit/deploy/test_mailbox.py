"""The mailbox for development, as a process of its own."""

import json
import smtplib
import subprocess
import sys
from email.message import EmailMessage
from urllib.request import urlopen

import pytest


@pytest.fixture(scope="module")
def mailbox():
    """The addresses of SMTP and of the page."""
    command = [sys.executable, "-m", "deploy.mailbox", "--smtp", "127.0.0.1:0", "--page", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        smtp, page = (process.stdout.readline().split()[-1] for _ in range(2))
        yield smtp, page
    finally:
        process.kill()
        process.wait()


def test_a_mail_is_kept_and_shown(mailbox):
    smtp, page = mailbox
    message = EmailMessage()
    message["Subject"] = "Siparişiniz <b>onaylandı</b>"
    message.set_content("..a line with dots\n.\nand more")
    message.add_alternative("<p>onaylandı</p><script>alert(1)</script>", subtype="html")
    with smtplib.SMTP(*smtp.split(":"), timeout=60) as client:
        client.send_message(message, "shop@example.com", ["ayse@example.com"])
        assert client.docmd("VRFY", "x")[0] == 502
    with urlopen(f"{page}/mails", timeout=60) as response:
        [mail] = json.load(response)
    assert (mail["from"], mail["to"]) == ("shop@example.com", ["ayse@example.com"])
    assert mail["subject"] == "Siparişiniz <b>onaylandı</b>"
    assert mail["text"].splitlines() == ["..a line with dots", ".", "and more"]
    with urlopen(page, timeout=60) as response:
        shown = response.read().decode()
        assert "script-src" not in response.headers["Content-Security-Policy"]
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "<script>" not in shown
    assert "Siparişiniz &lt;b&gt;onaylandı&lt;/b&gt;" in shown


def test_a_mail_that_is_too_large_is_refused(mailbox):
    smtp, page = mailbox
    with smtplib.SMTP(*smtp.split(":"), timeout=60) as client, pytest.raises((OSError, smtplib.SMTPException)):
        client.sendmail("a@example.com", ["b@example.com"], ("x" * 900 + "\r\n") * 1200)
    with urlopen(page, timeout=60) as response:
        assert response.status == 200
