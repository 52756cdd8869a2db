"""The simulated payment provider: in process, and over HTTP from a server of its own."""

import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import eventlet
import pytest
from pydantic import TypeAdapter, ValidationError

from contracts.payments import PaymentMethod
from payments.http_provider import HttpProvider
from payments.provider import (
    Approved,
    Call,
    Captured,
    Declined,
    Operation,
    OutcomeUnknown,
    ProviderRefuses,
    ProviderUnavailable,
    Refunded,
    SimulatedProvider,
    Voided,
)
from payments.script import Script, UnknownMethod, script_of
from payments.simulated_provider import MemoryLedger

LIMIT = Decimal("10000.00")
KEYS = iter(range(10**6))
METHODS = [
    "pm_ok",
    "pm_declined",
    "pm_insufficient_funds",
    "pm_slow_20",
    "pm_hangs",
    "pm_answer_lost",
    "pm_duplicate_answer",
    "pm_error_2",
    "pm_capture_fails_2",
    "pm_refund_fails_2",
]


@pytest.fixture(scope="module")
def server():
    """The URL of the simulated provider in a process of its own."""
    command = [sys.executable, "-m", "payments.simulated_provider", "--port", "0", "--limit", str(LIMIT)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield process.stdout.readline().split()[-1]
        process.kill()


@pytest.fixture(scope="module", params=["simulated", "http"])
def provider(request):
    """Both implementations of the interface."""
    if request.param == "simulated":
        return SimulatedProvider(LIMIT, MemoryLedger())
    return HttpProvider(request.getfixturevalue("server"), timeout=30.0)


def authorisation(method="pm_ok", amount="149.90"):
    key = f"{next(KEYS)}:authorise"
    return Call(Operation.AUTHORISE, key, key, Decimal(amount), "TRY", method)


def following(call, operation, reference=None):
    order = call.authorisation.partition(":")[0]
    return replace(call, operation=operation, key=f"{order}:{operation}", reference=reference)


def attempts(provider, call, errors=(ProviderUnavailable, OutcomeUnknown)):
    """Make a call until it succeeds. Returns the errors and the outcomes."""
    failed = []
    while True:
        try:
            return failed, provider.ask(call)
        except errors as error:
            failed.append(type(error))


@pytest.mark.parametrize("amount", ["0.00", "149.90", "10000.00", "10000"])
def test_an_amount_up_to_the_limit_is_approved(provider, amount):
    [outcome] = provider.ask(authorisation(amount=amount))
    assert isinstance(outcome, Approved)


@pytest.mark.parametrize("amount", ["10000.01", "99999999.99"])
def test_an_amount_over_the_limit_is_declined(provider, amount):
    assert provider.ask(authorisation(amount=amount)) == (Declined("amount over the limit of 10000.00"),)


def test_the_limit_can_be_configured():
    strict = SimulatedProvider(Decimal(5))
    assert strict.ask(authorisation(amount="5.01")) == (Declined("amount over the limit of 5.00"),)


def test_the_same_key_gives_the_same_authorisation(provider):
    one = authorisation()
    assert provider.ask(one) == provider.ask(one)
    assert provider.ask(one) != provider.ask(authorisation())


def test_money_is_captured_and_refunded_once(provider):
    call = authorisation()
    [approved] = provider.ask(call)
    for operation, kind in ((Operation.CAPTURE, Captured), (Operation.REFUND, Refunded)):
        step = following(call, operation, approved.reference)
        [outcome] = provider.ask(step)
        assert isinstance(outcome, kind)
        assert provider.ask(step) == (outcome,)


def test_a_void_names_the_authorisation_by_its_key(provider):
    call = authorisation()
    provider.ask(call)
    [outcome] = provider.ask(following(call, Operation.VOID))
    assert isinstance(outcome, Voided)


def test_contradictions_are_refused(provider):
    captured, voided, never_made = authorisation(), authorisation(), authorisation()
    [approved] = provider.ask(captured)
    with pytest.raises(ProviderRefuses):
        provider.ask(following(captured, Operation.REFUND, approved.reference))
    provider.ask(following(captured, Operation.CAPTURE, approved.reference))
    with pytest.raises(ProviderRefuses):
        provider.ask(following(captured, Operation.VOID))
    [approved] = provider.ask(voided)
    provider.ask(following(voided, Operation.VOID))
    with pytest.raises(ProviderRefuses):
        provider.ask(following(voided, Operation.CAPTURE, approved.reference))
    with pytest.raises(ProviderRefuses):
        provider.ask(following(captured, Operation.CAPTURE, "auth_never_given"))
    provider.ask(following(never_made, Operation.VOID))
    with pytest.raises(ProviderRefuses):  # the authorisation comes late, from a process that lost its lease
        provider.ask(never_made)


@pytest.mark.parametrize(
    ("method", "reason"), [("pm_declined", "the card was declined"), ("pm_insufficient_funds", "insufficient funds")]
)
def test_a_method_can_be_declined(provider, method, reason):
    assert provider.ask(authorisation(method)) == (Declined(reason),)


def test_an_unknown_method_is_declined(provider):
    assert provider.ask(authorisation("pm_new")) == (Declined("unknown payment method 'pm_new'"),)


def test_a_slow_method_takes_its_time_once(provider):
    call, began = authorisation("pm_slow_300"), time.monotonic()
    provider.ask(call)
    assert time.monotonic() - began >= 0.3
    provider.ask(call)  # the outcome is there already


def test_a_method_can_hang(provider):
    with pytest.raises(eventlet.Timeout), eventlet.Timeout(0.2):
        provider.ask(authorisation("pm_hangs"))


def test_a_payment_that_hangs_can_be_voided(provider):
    [outcome] = provider.ask(following(authorisation("pm_hangs"), Operation.VOID))
    assert isinstance(outcome, Voided)


@pytest.mark.parametrize(
    ("method", "errors"),
    [
        ("pm_ok", [[], [], []]),
        ("pm_answer_lost", [[OutcomeUnknown]] * 3),
        ("pm_error_2", [[ProviderUnavailable] * 2, [], []]),
        ("pm_capture_fails_2", [[], [ProviderUnavailable] * 2, []]),
        ("pm_refund_fails_1", [[], [], [ProviderUnavailable]]),
    ],
)
def test_calls_fail_as_the_method_says_and_then_succeed(provider, method, errors):
    call = authorisation(method)
    seen, (approved, *_) = attempts(provider, call)
    found = [seen]
    for operation in (Operation.CAPTURE, Operation.REFUND):
        seen, [_] = attempts(provider, following(call, operation, approved.reference))
        found.append(seen)
    assert found == errors


def test_an_outcome_may_come_twice():
    outcomes = SimulatedProvider(LIMIT).ask(authorisation("pm_duplicate_answer"))
    assert len(outcomes) == 2
    assert len(set(outcomes)) == 1


def test_a_second_response_is_not_taken_for_the_outcome_of_the_next_call(server):
    provider, call = HttpProvider(server, timeout=30.0), authorisation("pm_duplicate_answer")
    [approved] = provider.ask(call)
    [captured] = provider.ask(following(call, Operation.CAPTURE, approved.reference))
    assert (type(approved), type(captured)) == (Approved, Captured)


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_the_contract_has_a_script(method):
    TypeAdapter(PaymentMethod).validate_python(method)
    assert (script_of(method) == Script()) == (method == "pm_ok")


@pytest.mark.parametrize(
    "method", ["", "ok", "pm_", "pm_OK", "pm_slow", "pm_slow_", "pm_slow_-1", "pm_slow_1.5", "pm_error_2x", "pm_ok\n"]
)
def test_other_methods_are_refused(method):
    with pytest.raises(ValidationError):
        TypeAdapter(PaymentMethod).validate_python(method)
    with pytest.raises(UnknownMethod):
        script_of(method)


# Over HTTP only


def answering(*replies):
    """The URL of a server that sends these bytes, each on a connection of its own, and closes it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        for reply in replies:
            connection, _ = listener.accept()
            connection.recv(65_536)
            connection.sendall(reply)
            connection.close()
        listener.close()

    threading.Thread(target=serve, daemon=True).start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.mark.parametrize(
    ("reply", "error"),
    [
        (b"", OutcomeUnknown),
        (b"nonsense\r\n\r\n", OutcomeUnknown),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", OutcomeUnknown),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", OutcomeUnknown),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", ProviderUnavailable),
        (b"HTTP/1.1 429 Slow\r\nContent-Length: 0\r\n\r\n", ProviderUnavailable),
        (b"HTTP/1.1 409 No\r\nContent-Length: 0\r\n\r\n", ProviderRefuses),
    ],
)
def test_what_the_provider_may_respond(reply, error):
    with pytest.raises(error):
        HttpProvider(answering(reply), timeout=30.0).ask(authorisation())


def test_a_provider_that_does_not_listen_has_done_nothing():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(ProviderUnavailable):
        HttpProvider(address, timeout=30.0).ask(authorisation())


def test_a_provider_that_does_not_respond_leaves_the_outcome_unknown():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(OutcomeUnknown):
            HttpProvider(address, timeout=0.1).ask(authorisation())


@pytest.mark.parametrize("url", ["", "provider:80", "ftp://provider"])
def test_a_wrong_address_is_refused(url):
    with pytest.raises(ValueError, match="PAYMENT_PROVIDER_URL"):
        HttpProvider(url, timeout=1.0)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"amount": "x"}', b"[]"])
def test_the_server_refuses_what_it_cannot_read(server, body):
    address = server.removeprefix("http://").split(":")
    with socket.create_connection(address) as connection:
        connection.sendall(b"POST /authorise HTTP/1.1\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        assert connection.recv(65_536).startswith(b"HTTP/1.0 400")


def test_refunds_in_parts_are_at_most_what_was_captured(provider):
    call = authorisation()
    [approved] = provider.ask(call)
    provider.ask(following(call, Operation.CAPTURE, approved.reference))

    def refund(key, amount):
        step = following(call, Operation.REFUND, approved.reference)
        [outcome] = provider.ask(replace(step, key=f"{step.key}:{key}", amount=Decimal(amount)))
        return outcome

    made = [refund(*each) for each in (("1", "100.00"), ("2", "49.00"), ("1", "100.00"), ("3", "0.90"))]
    assert made[0] == made[2], "a repeated call has the same outcome"
    assert len({each.reference for each in made}) == 3
    for key, amount in (("4", "0.01"), ("1", "99.00")):
        with pytest.raises(ProviderRefuses):
            refund(key, amount)


def test_the_memory_of_scripts_is_bounded(monkeypatch):
    monkeypatch.setattr("payments.provider.MAX_REMEMBERED", 3)
    provider = SimulatedProvider(LIMIT)
    for _ in range(5):
        attempts(provider, authorisation("pm_error_1"))
    assert len(provider._asked) == 3


def test_the_ledger_is_bounded(monkeypatch):
    monkeypatch.setattr("payments.simulated_provider.MAX_PAYMENTS", 3)
    ledger = MemoryLedger()
    calls = [SimpleNamespace(operation=Operation.AUTHORISE, authorisation=str(number)) for number in range(5)]
    for call in calls:
        ledger.authorise(call, "auth")
    assert [bool(ledger.done(call.authorisation)) for call in calls] == [False, False, True, True, True]
