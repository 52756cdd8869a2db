"""Changes the state of the test broker: alarms, permissions. Undo them in the same test."""

import os
import subprocess
from contextlib import contextmanager

from deploy.local import install
from extensions.messaging.topology import EVENT_LOG
from qa.chaos.broker_control import control, topic_permissions


def rabbitmqctl(rabbitmq, *arguments):
    """Run rabbitmqctl on the private broker."""
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


@contextmanager
def memory_alarm(rabbitmq):
    """The broker is short of memory: it reads nothing from connections that publish. Keep it short."""
    control(rabbitmq, "set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        yield
    finally:
        control(rabbitmq, "set_vm_memory_high_watermark", "absolute", "1GB")


@contextmanager
def silent_event_log(rabbitmq):
    """The event log confirms nothing: the process of the broker that writes it is suspended."""
    name = f'rabbit_misc:r(<<"/">>, queue, <<"{EVENT_LOG}">>)'
    leader = f"{{{{ok, Q}}}} = rabbit_amqqueue:lookup({name}), sys:{{}}(amqqueue:get_pid(Q))."
    rabbitmqctl(rabbitmq, "eval", leader.format("suspend"))
    try:
        yield
    finally:
        rabbitmqctl(rabbitmq, "eval", leader.format("resume"))


@contextmanager
def topic_permission(rabbitmq, user, exchange, write):
    """`user` may publish to `exchange` what the regular expression `write` matches; afterwards what it might before.

    A channel of the broker forgets a checked permission only once it is idle for a second or more: await the effect.
    """
    written, read = topic_permissions(rabbitmq, user, exchange)
    rabbitmqctl(rabbitmq, "set_topic_permissions", user, exchange, write, read)
    try:
        yield
    finally:
        rabbitmqctl(rabbitmq, "set_topic_permissions", user, exchange, written, read)
