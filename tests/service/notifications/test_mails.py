"""Mails in a real container, sent to a real SMTP server, and the preferences of the users."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import eventlet
import pytest
from nameko import config
from nameko.exceptions import ConfigurationError
from sqlalchemy import text

from contracts.errors import PreconditionFailed, ValidationFailed
from contracts.etags import etag
from contracts.ids import new_id
from contracts.inventory import StockLow
from contracts.notifications import KINDS, PreferencesNotFound
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderCreated, OrderDelivered, OrderShipped
from contracts.payments import PaymentPartiallyRefunded, PaymentRefunded
from contracts.users import (
    UserDeleted,
    UserEmailVerificationRequested,
    UserPasswordResetRequested,
    UserRegistered,
    UserUpdated,
)
from extensions.outbound.smtp import SmtpClient
from extensions.storage import work_items_runner
from extensions.storage.work_items_runner import WorkItems
from notifications import mails, providers
from notifications.service import NotificationsService
from tests.mail_server import mail_server
from tests.receiver import Receiver
from tests.support import database, eventually

PRICE = {"total_amount": Decimal("149.90"), "currency": "TRY"}


@pytest.fixture(scope="module")
def server(servers):
    with mail_server() as started:
        settings = {"SMTP_HOST": "localhost", "SMTP_PORT": started.port, "MAIL_FROM": "shop@example.com"}
        with config.patch(settings | {"SHOP_URL": "https://shop.example.com/"}):
            yield started


@pytest.fixture
def service(server, shared_services, caller):
    shared_services(NotificationsService)
    server.mails.clear()
    return caller.notifications


@pytest.fixture
def rows(servers):
    """Returns a function that reads or changes the database of notifications."""
    engine = database("notifications")

    def run(statement, **parameters):
        with engine.begin() as connection:
            found = connection.execute(text(statement), parameters)
            return found.all() if found.returns_rows else []

    return run


@pytest.fixture
def registered(service, bus):
    """Returns a function that registers a user: `registered(name, language)` returns (id, address)."""

    def register(name="ayse", language="en"):
        user_id = new_id()
        address = f"{name}@{user_id.hex}.example.com"
        bus.publish(UserRegistered(user_id=user_id, email=address, language=language))
        return user_id, address

    return register


def confirmed(user_id):
    return OrderConfirmed(order_id=new_id(), user_id=user_id, **PRICE)


def parts(message):
    return message.get_body(("plain",)).get_content(), message.get_body(("html",)).get_content()


def test_a_confirmed_order_is_mailed_as_text_and_html(service, server, bus, registered, rows):
    user_id, address = registered()
    event = confirmed(user_id)
    bus.publish(event)
    [message] = eventually(lambda: server.to(address))
    assert (message["From"], message["To"], message["Subject"]) == (
        "shop@example.com",
        address,
        "Your order is confirmed",
    )
    assert message["Message-ID"].endswith("@example.com>")
    for part in parts(message):
        assert f"{event.order_id} of 149.90 TRY" in part
    assert "style=" in parts(message)[1], "the styles are not inline"
    [kept] = eventually(lambda: rows("SELECT recipient, fields FROM mails WHERE state = 'SENT'"))
    assert kept == (None, None), "what is personal is removed"
    assert rows("SELECT FROM work_items") == []


def test_each_kind_of_event_in_the_language_of_the_user(service, server, bus, registered):
    user_id, address = registered(language="tr")
    order = {"order_id": new_id(), "user_id": user_id}
    refund = {"payment_id": new_id(), **order}
    expires = datetime(2026, 11, 30, 12, 30, tzinfo=UTC)
    link = {"email": address, "token": "t0ken", "expires_at": expires, "user_id": user_id, "language": "tr"}
    events = {
        "Siparişiniz onaylandı": OrderConfirmed(**order, **PRICE),
        "Siparişiniz iptal edildi": OrderCancelled(reason=CancelReason.OUT_OF_STOCK, **order),
        "Siparişiniz yola çıktı": OrderShipped(carrier="<PTT>", tracking_number="RR12", **order),
        "Siparişiniz teslim edildi": OrderDelivered(**order),
        "Ödemeniz iade edildi": PaymentRefunded(amount=Decimal("149.90"), currency="TRY", **refund),
        "Ödemenizin bir kısmı iade edildi": PaymentPartiallyRefunded(
            amount=Decimal(1), remaining=Decimal(2), currency="TRY", **refund
        ),
        "Yeni parola belirleyin": UserPasswordResetRequested(**link),
        "E-posta adresinizi doğrulayın": UserEmailVerificationRequested(**link),
    }
    for event in events.values():
        bus.publish(event)
    eventually(lambda: len(server.to(address)) == len(events))
    found = {message["Subject"]: parts(message) for message in server.to(address)}
    assert set(found) == set(events)
    plain, html = found["Siparişiniz yola çıktı"]
    assert "<PTT>" in plain
    assert "&lt;PTT&gt;" in html
    assert "RR12" in plain
    plain, html = found["Yeni parola belirleyin"]
    assert "https://shop.example.com/users/password-reset/confirm" in plain
    assert '"token": "t0ken"' in plain
    assert "2026-11-30 12:30" in plain
    assert "t0ken" in html
    assert "stokta yeterli ürün yok" in found["Siparişiniz iptal edildi"][0]


def test_low_stock_is_mailed_to_the_administrators(service, server, bus, registered, rows):
    (admin, address), (_customer, other) = registered("admin"), registered("customer")
    bus.publish(UserUpdated(user_id=admin, roles=("admin",), is_active=True, at=datetime.now(UTC)))
    eventually(lambda: rows("SELECT FROM recipients WHERE is_admin"))
    for _ in range(2):  # it can happen again
        bus.publish(StockLow(product_id=new_id(), product_sku="TEA", available=2, threshold=5))
    eventually(lambda: len(server.to(address)) == 2)
    assert server.to(address)[0]["Subject"] == "TEA is running out"
    assert server.to(other) == []


def test_the_same_fact_is_mailed_once(service, server, bus, registered, rows):
    user_id, address = registered()
    event = confirmed(user_id)
    for _ in range(3):
        bus.publish(event)
    bus.publish(OrderDelivered(order_id=event.order_id, user_id=user_id))
    eventually(lambda: len(rows("SELECT FROM inbox")) == 5)  # the registration, too
    eventually(lambda: not rows("SELECT FROM mails WHERE state = 'PENDING'"))
    assert sorted(message["Subject"] for message in server.to(address)) == [
        "Your order has arrived",
        "Your order is confirmed",
    ]


def test_an_address_that_comes_later(service, server, bus, rows):
    user_id, address = new_id(), f"late@{new_id().hex}.example.com"
    bus.publish(confirmed(user_id))
    eventually(lambda: rows("SELECT FROM mails WHERE recipient IS NULL"))
    bus.publish(UserRegistered(user_id=user_id, email=address))
    assert eventually(lambda: server.to(address))


def test_a_refused_mail_is_given_up_and_a_deferred_one_is_repeated(service, server, bus, registered, rows):
    (refused, _), (deferred, address) = registered("refused"), registered("deferred")
    bus.publish(confirmed(refused))
    bus.publish(confirmed(deferred))
    found = "SELECT state, attempts, unsettled, error FROM mails WHERE user_id = :user AND attempts > 0"
    [(state, attempts, unsettled, error)] = eventually(lambda: rows(found, user=refused))
    assert (state, attempts, unsettled) == ("FAILED", 1, 0)
    assert "550" in error
    [(state, attempts, unsettled, error)] = eventually(lambda: rows(found, user=deferred))
    assert (state, attempts, unsettled) == ("PENDING", 1, 0)
    assert "451" in error
    [(pause,)] = rows("SELECT extract(epoch FROM next_attempt_at - clock_timestamp())::float FROM work_items")
    assert 0 < pause <= 5
    rows("UPDATE mails SET recipient = :address WHERE user_id = :user", address=f"x{address}", user=deferred)
    rows("UPDATE work_items SET next_attempt_at = clock_timestamp() WHERE lease IS NULL")
    assert eventually(lambda: server.to(f"x{address}"))


def test_a_mail_of_which_the_end_is_unknown_is_sent_twice_at_most(service, server, bus, registered, rows):
    user_id, address = registered("lost")
    bus.publish(confirmed(user_id))
    eventually(lambda: rows("SELECT FROM mails WHERE attempts = 1"))
    rows("UPDATE work_items SET next_attempt_at = clock_timestamp() WHERE lease IS NULL")
    [(unsettled,)] = eventually(lambda: rows("SELECT unsettled FROM mails WHERE state = 'FAILED'"))
    first, second = server.to(address)
    assert first["Message-ID"] == second["Message-ID"]
    assert unsettled == 2


def test_after_two_crashes_it_is_not_sent_again(service, server, bus, registered, rows):
    """Two processes ended between the sending of a mail and its record."""
    user_id, address = registered("deferred")
    bus.publish(confirmed(user_id))
    eventually(lambda: rows("SELECT FROM mails WHERE attempts = 1"))
    rows("UPDATE mails SET unsettled = 2, recipient = :address", address=f"x{address}")
    rows("UPDATE work_items SET next_attempt_at = clock_timestamp() WHERE lease IS NULL")
    eventually(lambda: rows("SELECT FROM mails WHERE state = 'FAILED'"))
    assert server.to(f"x{address}") == []


def test_an_attempt_counts_from_the_moment_at_which_the_server_can_take_the_mail(
    service, server, bus, registered, rows, monkeypatch
):
    """Otherwise two crashes of processes that wait for the server would lose the mail."""
    send, door, counts = SmtpClient.send, eventlet.Event(), []

    def send_later(*arguments, before_data):
        door.wait()

        def count():
            before_data()
            counts.extend(rows("SELECT unsettled FROM mails WHERE state = 'PENDING'"))

        send(*arguments, before_data=count)

    monkeypatch.setattr(SmtpClient, "send", send_later)
    user_id, address = registered()
    bus.publish(confirmed(user_id))
    eventually(lambda: rows("SELECT FROM work_items WHERE lease IS NOT NULL"))
    assert rows("SELECT unsettled FROM mails") == [(0,)]
    door.send()
    eventually(lambda: rows("SELECT FROM mails WHERE state = 'SENT' AND unsettled = 0"))
    assert len(server.to(address)) == 1
    assert counts == [(1,)]


def test_slow_mails_delay_no_other(service, shared_services, server, bus, registered, rows, monkeypatch):
    """There is one place for a mail, and the server takes long for two."""
    entrypoints = shared_services.containers["notifications"].entrypoints
    lane = next(one.lanes[mails.KIND] for one in entrypoints if isinstance(one, WorkItems) and mails.KIND in one.lanes)
    monkeypatch.setattr(lane, "limits", replace(lane.limits, concurrency=1, prompt=lane.limits.prompt / 20))
    monkeypatch.setattr(work_items_runner, "POLL_SECONDS", 0.1)
    slow = [registered("slow") for _ in range(2)]
    for user_id, _ in slow:
        bus.publish(confirmed(user_id))
    eventually(lambda: len(rows("SELECT FROM work_items WHERE lease IS NOT NULL")) == 2)
    user_id, address = registered()
    bus.publish(confirmed(user_id))
    eventually(lambda: server.to(address))
    assert [server.to(one) for _, one in slow] == [[], []], "it waited for the others"
    eventually(lambda: rows("SELECT FROM work_items") == [])


def test_a_disabled_webhook_is_mailed(service, server, bus, registered):
    user_id, address = registered()
    receiver = Receiver(lambda _: 410)
    try:
        actor = {"user_id": str(user_id), "roles": ["customer"]}
        service.create_webhook(url=receiver.url, events=["order.created"], actor=actor)
        bus.publish(OrderCreated(order_id=new_id(), user_id=user_id, items=(), **PRICE))
        [message] = eventually(lambda: server.to(address))
        assert message["Subject"] == "A webhook is disabled"
        assert receiver.url in parts(message)[0]
    finally:
        receiver.stop()


def test_a_deleted_account_gets_no_mail(service, server, bus, registered, rows):
    user_id, address = registered()
    bus.publish(UserDeleted(user_id=user_id))
    eventually(lambda: rows("SELECT FROM recipients WHERE deleted_at IS NOT NULL"))
    link = {"user_id": user_id, "email": address, "token": "t", "expires_at": datetime.now(UTC) + timedelta(hours=1)}
    for event in (confirmed(user_id), UserPasswordResetRequested(**link)):
        bus.publish(event)
    other, others_address = registered()
    bus.publish(confirmed(other))
    eventually(lambda: server.to(others_address))
    assert server.to(address) == []
    assert rows("SELECT FROM mails WHERE user_id = :user", user=user_id) == []


class TestPreferences:
    def test_every_kind_has_every_channel(self, service):
        user_id = str(new_id())
        items = service.get_preferences(user_id, actor={"user_id": user_id, "roles": ["customer"]})["items"]
        assert [item["kind"] for item in items] == list(KINDS)
        assert all(item["in_app"] and item["webhook"] for item in items)
        assert {item["kind"] for item in items if not item["email"]} == {"user.registered", "order.created"}

    def test_what_is_not_wanted_is_not_told(self, service, server, bus, registered, rows):
        user_id, address = registered()
        actor = {"user_id": str(user_id), "roles": ["customer"]}
        receiver = Receiver()
        service.create_webhook(url=receiver.url, actor=actor)
        kind = "order.confirmed"
        nothing = {"kind": kind, "in_app": False, "email": False, "webhook": False}
        view = service.set_preferences(str(user_id), items=[nothing], actor=actor)
        assert nothing in view["items"]
        bus.publish(confirmed(user_id))
        bus.publish(OrderDelivered(order_id=new_id(), user_id=user_id))
        eventually(lambda: server.to(address) and receiver.received)
        receiver.stop()
        assert [message["Subject"] for message in server.to(address)] == ["Your order has arrived"]
        assert not receiver.of_type(kind)
        kinds = {one["kind"] for one in service.list_notifications(actor=actor)["items"]}
        assert kinds == {"user.registered", "order.delivered"}
        assert len(rows("SELECT FROM notifications WHERE kind = :kind", kind=kind)) == 1, "the audit counts it"

    def test_a_new_statement_replaces_the_old_one(self, service):
        user_id = str(new_id())
        first = service.set_preferences(user_id, items=[{"kind": "order.created", "email": True}])
        assert {"kind": "order.created", "in_app": True, "email": True, "webhook": True} in first["items"]
        assert service.set_preferences(user_id, items=[])["items"] == service.get_preferences(str(new_id()))["items"]
        with pytest.raises(PreconditionFailed):
            service.set_preferences(user_id, items=[], if_match=[etag(first)])

    @pytest.mark.parametrize("item", [{"kind": "order.lost"}, {"kind": "order.created", "sms": True}, {"email": True}])
    def test_unknown_kinds_and_channels_are_refused(self, service, item):
        with pytest.raises(ValidationFailed):
            service.set_preferences(str(new_id()), items=[item])

    def test_preferences_belong_to_their_user(self, service):
        for roles in (["customer"], ["customer", "admin"]):
            actor = {"user_id": str(new_id()), "roles": roles}
            with pytest.raises(PreferencesNotFound):
                service.get_preferences(str(new_id()), actor=actor)
            with pytest.raises(PreferencesNotFound):
                service.set_preferences(str(new_id()), items=[], actor=actor)


@pytest.mark.parametrize(
    "settings",
    [  # each is wrong in one way
        {"SMTP_PORT": 70_000},
        {"SMTP_PORT": "smtp"},
        {"SMTP_SECURITY": "ssl"},
        {"SMTP_USER": "shop"},
        {"SMTP_USER": "shop", "SMTP_PASSWORD": "x", "SMTP_SECURITY": "none"},
        {"MAIL_FROM": "shop"},
        {"MAIL_FROM": "shop@example.com\r\nBcc: all@example.com"},
    ],
)
def test_wrong_settings_stop_the_service_at_its_start(settings):
    with config.patch({"SMTP_HOST": "mail.example.com", **settings}), pytest.raises(ConfigurationError):
        providers.Mails().setup()
