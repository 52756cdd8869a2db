"""The slow faults: each kind says what it affects, has its effect, and is undone, whatever happens."""

import json
import random
import socket
import threading
from collections import Counter
from contextlib import closing, contextmanager, nullcontext, suppress
from types import SimpleNamespace

import amqp
import psycopg2
import pytest

from contracts.events import EXCHANGE, queue_name
from contracts.services import SERVICES
from qa.chaos import alarm_faults, broker_control, lock_faults, process_faults, provider_faults, refusal_faults
from qa.chaos.__main__ import KINDS as CRASH_KINDS
from qa.chaos.client_faults import clients
from qa.chaos.duplicate_event_faults import RECORDER, channel_of, start_recording
from qa.chaos.faults import FaultNotInjected
from qa.chaos.load import Load
from qa.chaos.payment_methods import PaymentMethods
from qa.chaos.sandbox import Sandbox
from qa.chaos.slow_clients import KINDS as CLIENTS
from qa.chaos.slow_faults import EVERYTHING, NOTHING, ONE_SERVICE, Effect, SlowFault
from qa.chaos.slow_kinds import KINDS
from qa.chaos.superuser import superuser


@pytest.fixture
def sandbox(servers):
    """A sandbox without a suite."""
    names = ("folder", "suite", "second", "environment", "url", "admin", "customer", "proxies", "clock", "receivers")
    nothing = dict.fromkeys(names)
    return Sandbox(servers=servers, direct=servers.addresses(), slow_seconds=(0.0, 0.01), **nothing)


def test_there_are_as_many_kinds_of_slow_faults_as_of_crash_faults():
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert not {kind.name for kind in KINDS} & {kind.name for kind in CRASH_KINDS}
    assert len(KINDS) >= 61


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_fault_affects_what_its_scope_says(sandbox, kind):
    sandbox.load = SimpleNamespace(catalogue=SimpleNamespace(selling=[{"id": "probe"}, {"id": "other"}]))
    sandbox.proxies = SimpleNamespace(link="{}_{}".format)
    affected = kind.plan(sandbox, random.Random(1)).affects
    if kind.scope == NOTHING:
        assert not affected
    elif kind.scope == EVERYTHING:
        assert affected >= {*SERVICES, "calls"}
    elif kind.scope == ONE_SERVICE:
        assert len(affected) == 1
    else:
        assert affected == {kind.scope}


def test_a_fault_without_an_effect_does_not_count():
    sandbox = SimpleNamespace(
        slow_seconds=(0.0, 0.01), exclusively=lambda *_: nullcontext(), watched=lambda *_: nullcontext()
    )
    fault = SlowFault("a kind", lambda *_: Effect("nothing", frozenset(), lambda: nullcontext(lambda: "")), NOTHING)
    with pytest.raises(FaultNotInjected):
        fault.inject(sandbox, random.Random(1))


def test_each_option_comes_once_before_any_comes_again(sandbox):
    chance = random.Random(1)
    turns = [sandbox.next_of("a kind", list("abc"), chance) for _ in range(9)]
    assert Counter(turns) == {"a": 3, "b": 3, "c": 3}
    assert all(set(turns[start : start + 3]) == set("abc") for start in (0, 3, 6))
    sandbox.preferred = ("x", "b")
    assert [sandbox.next_of("a kind", list("abc"), chance) for _ in range(3)] == ["b", "b", "b"]


# Locks


@pytest.fixture
def row(servers):
    """A table with one row."""
    with superuser(servers.postgres, "payments") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE locked (number int)")
        cursor.execute("INSERT INTO locked VALUES (1)")
        yield cursor
        cursor.execute("DROP TABLE locked")


def test_a_row_is_locked_within_the_block_only(sandbox, row):
    with (
        lock_faults.holding(sandbox, "payments", "SELECT * FROM locked WHERE number = %s FOR UPDATE", [1]),
        pytest.raises(psycopg2.errors.LockNotAvailable),
    ):
        row.execute("SELECT * FROM locked FOR UPDATE NOWAIT")
    row.execute("SELECT * FROM locked FOR UPDATE NOWAIT")


def test_a_lock_ends_also_after_an_exception(sandbox, row):
    with pytest.raises(ZeroDivisionError), lock_faults.holding(sandbox, "payments", "LOCK TABLE locked"):
        1 / 0  # noqa: B018
    row.execute("SELECT * FROM locked FOR UPDATE NOWAIT")


def test_without_a_row_there_is_no_fault(sandbox, row, monkeypatch):
    monkeypatch.setattr(lock_faults, "FOUND_WITHIN_SECONDS", 0.0)
    with (
        pytest.raises(FaultNotInjected),
        lock_faults.holding(sandbox, "payments", "SELECT * FROM locked WHERE number = 2 FOR UPDATE"),
    ):
        pass


@pytest.mark.parametrize("service", lock_faults.TABLES)
def test_every_table_can_be_locked(sandbox, service):
    fault = next(kind for kind in KINDS if kind.name == f"a table of {service} is locked")
    assert f"{lock_faults.TABLES[service]} of {service} locked" in fault.inject(sandbox, random.Random(1))


# The broker


@pytest.fixture
def commands(monkeypatch):
    """The commands to the broker; those with a word of `fails` raise."""
    sent = SimpleNamespace(commands=[], fails="nothing")

    def control(_rabbitmq, *arguments):
        sent.commands.append(arguments)
        if sent.fails in arguments:
            raise RuntimeError("rabbitmqctl failed")

    monkeypatch.setattr(alarm_faults, "control", control)
    monkeypatch.setattr(alarm_faults, "undo", control)
    monkeypatch.setattr(refusal_faults, "control", control)
    monkeypatch.setattr(refusal_faults, "undo", control)
    return sent


@pytest.mark.parametrize(
    ("fault", "undone"),
    [
        (alarm_faults.memory, ("set_vm_memory_high_watermark", "absolute", "1GB")),
        (alarm_faults.disk, ("set_disk_free_limit", "200MB")),
    ],
)
@pytest.mark.parametrize("fails", ["nothing", alarm_faults.LESS_THAN_IT_HAS, alarm_faults.MORE_THAN_ANY_DISK])
def test_an_alarm_is_always_undone(sandbox, commands, fault, undone, fails):
    commands.fails = fails
    with suppress(RuntimeError), fault(sandbox, random.Random(1)).broken():
        pass
    assert commands.commands[-1] == undone


def test_a_forbidden_event_is_the_only_one_and_is_allowed_again(sandbox, commands, monkeypatch):
    monkeypatch.setattr(refusal_faults, "_reconnect", lambda *_: None)
    effect = refusal_faults.forbidden(sandbox, random.Random(1))
    with effect.broken() as note:
        assert note() == ""  # nothing waits in the outbox
    (*_, forbidding, read), (*_, write, read_again) = commands.commands
    key = effect.what.rpartition(" ")[2].replace(".", r"\.")
    assert forbidding == f"^(?!{key}$){write[1:]}"
    assert key in write
    assert read == read_again


def test_an_event_that_no_queue_takes_is_returned_and_bound_again(sandbox, channel):
    for _ in range(len(refusal_faults.CHOICE)):
        effect = refusal_faults.unroutable(sandbox, random.Random(1))
        key = effect.what.rpartition(" ")[2]
        with effect.broken():
            assert returned(channel, key)
        assert not returned(channel, key)


@pytest.fixture
def channel(sandbox):
    """A channel of the broker. The recorder is bound, as in a run, and everything that was published is removed."""
    start_recording(sandbox)
    with channel_of(sandbox) as channel:
        channel.confirm_select()
        yield channel
        channel.queue_delete(RECORDER)
        for event in refusal_faults.CHOICE.values():
            channel.queue_purge(queue_name(event.consumers[0], event))


def returned(channel, key):
    """Whether the broker returns an event with this key."""
    back = []
    channel.events["basic_return"].add(lambda *arguments: back.append(arguments))
    channel.basic_publish_confirm(amqp.Message("{}"), EXCHANGE, key, mandatory=True)
    return bool(back)


# Payment methods


@pytest.fixture
def load():
    load = Load.__new__(Load)
    load.payment_methods, load.requests = PaymentMethods(), []
    load.catalogue = SimpleNamespace(low={"id": "low"}, high={"id": "high"})
    return load


def test_one_in_ten_orders_has_the_payment_method_within_the_block(load):
    with load.payment_methods.use("pm_hangs", 10) as count:
        assert [load.payment_methods.next() for _ in range(20)] == (["pm_hangs"] + [None] * 9) * 2
        assert count() == 2
    assert {load.payment_methods.next() for _ in range(20)} == {None}


def test_payment_methods_at_the_same_time_share_the_orders(load):
    with load.payment_methods.use("pm_hangs", 1), load.payment_methods.use("pm_slow_3000", 1):
        assert Counter(load.payment_methods.next() for _ in range(20)) == {"pm_hangs": 10, "pm_slow_3000": 10}


def test_the_provider_faults_use_the_methods_of_the_contract(load):
    methods = set()
    for fault in provider_faults.FAULTS:
        effect = fault.plan(SimpleNamespace(load=load), random.Random(1))
        methods.add(effect.what.split(" ")[0])
        with effect.broken() as note:
            assert note() == ""
            body = load._body(load._record(), {"product": 1}, load.payment_methods.next())
            assert [line["product_id"] for line in body["items"]] == ["product", "low", "high"]
        all_orders = effect.what.endswith("for all")
        assert effect.affects == (frozenset({"payments"}) if all_orders else frozenset())
        assert "payment_method" in body or not all_orders
    assert {method.rstrip("0123456789") for method in methods} == {
        "pm_hangs", "pm_slow_", "pm_answer_lost", "pm_error_", "pm_capture_fails_", "pm_refund_fails_",
    }  # fmt: skip


# Clients


@pytest.mark.parametrize("kind", CLIENTS)
def test_slow_clients_connect_behave_and_end(kind):
    listening = socket.create_server(("127.0.0.1", 0))
    heads = []

    def serve(client):
        with client, suppress(OSError):
            heads.append(client.recv(65536))
            client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 1000)
            while client.recv(65536):
                pass

    def accept():
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=[listening.accept()[0]], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with closing(listening), clients(f"http://127.0.0.1:{listening.getsockname()[1]}", kind, 3) as end:
        seen = end()
    assert seen["connected"] >= 3
    assert any(head.startswith((b"GET /", b"POST /")) for head in heads)


def test_the_superusers_faults_report_a_server_that_is_down():
    @contextmanager
    def down(_database):
        raise psycopg2.OperationalError("connection refused")
        yield

    with pytest.raises(FaultNotInjected, match="connection refused"):
        process_faults.expire_deadlines(SimpleNamespace(superuser=down))


def test_definitions_have_the_permissions_that_a_fault_restores(servers):
    definitions = json.loads((servers.rabbitmq.home / "definitions.json").read_text())
    for event in refusal_faults.CHOICE.values():
        write, _read = broker_control.topic_permissions(servers.rabbitmq, event.producer, EXCHANGE)
        assert event.event_type.replace(".", r"\.") in write
    assert definitions["topic_permissions"]
