"""Changes the state of the test broker with rabbitmqctl: alarms, permissions. Undo them in the same test."""

import os
import subprocess
from contextlib import contextmanager

from deploy.local import install


def rabbitmqctl(rabbitmq, *arguments):
    """Run rabbitmqctl on the private broker, and return its output."""
    done = subprocess.run(
        [install.rabbitmq().with_name("rabbitmqctl"), "--node", "order-suite@localhost", "--quiet", *arguments],
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8", **rabbitmq.environment()},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"rabbitmqctl {arguments[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


@contextmanager
def memory_alarm(rabbitmq):
    """The broker is short of memory: it reads nothing from connections that publish. Keep it short."""
    rabbitmqctl(rabbitmq, "set_vm_memory_high_watermark", "0.0000001")
    try:
        yield
    finally:
        rabbitmqctl(rabbitmq, "set_vm_memory_high_watermark", "absolute", "1GB")


@contextmanager
def topic_permission(rabbitmq, user, exchange, write):
    """`user` may publish to `exchange` what the regular expression `write` matches; afterwards what it might before."""
    name, _, before = next(
        line.partition("\t")
        for line in rabbitmqctl(rabbitmq, "list_user_topic_permissions", user, "--no-table-headers").splitlines()
        if line.split("\t")[1] == exchange
    )
    _, written, read = before.split("\t")
    rabbitmqctl(rabbitmq, "set_topic_permissions", user, exchange, write, read)
    try:
        yield
    finally:
        rabbitmqctl(rabbitmq, "set_topic_permissions", "-p", name, user, exchange, written, read)
