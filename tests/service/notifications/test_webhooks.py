"""Webhooks in a real container, with receivers on loopback. `standardwebhooks` verifies what they receive."""

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import eventlet
import pytest
from nameko.testing.services import entrypoint_hook
from sqlalchemy import text
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from contracts.errors import InvalidState, PermissionDenied, PreconditionFailed, ValidationFailed
from contracts.etags import etag
from contracts.ids import new_id
from contracts.inventory import StockLow
from contracts.notifications import NotificationNotFound
from contracts.orders import CancelReason, OrderCancelled, OrderConfirmed, OrderCreated, OrderShipped
from contracts.payments import PaymentPartiallyRefunded, PaymentRefunded
from contracts.users import UserDeleted, UserRegistered, UserUpdated
from contracts.webhooks import (
    MAX_WEBHOOKS,
    DeliveryNotFound,
    TooManyWebhooks,
    WebhookDisabled,
    WebhookNotFound,
)
from extensions.outbound import client
from extensions.storage import work_items_runner
from extensions.storage.work_items_runner import WorkItems
from notifications import deliveries, rules, webhooks
from notifications.service import NotificationsService
from tests.receiver import Receiver
from tests.support import database, eventually

PRICE = {"total_amount": Decimal("149.90"), "currency": "TRY"}
DEAD = "http://127.0.0.77:9999/"  # nothing listens there


def customer():
    return {"user_id": str(new_id()), "roles": ["customer"]}


def administrator():
    return {"user_id": str(new_id()), "roles": ["customer", "admin"]}


def created(actor):
    return OrderCreated(order_id=new_id(), user_id=actor["user_id"], items=(), **PRICE)


def confirmed(actor):
    return OrderConfirmed(order_id=new_id(), user_id=actor["user_id"], **PRICE)


@pytest.fixture
def service(shared_services, caller):
    shared_services(NotificationsService)
    return caller.notifications


@pytest.fixture
def receiver():
    """Returns a function that starts a receiver."""
    started = []

    def start(*arguments):
        started.append(Receiver(*arguments))
        return started[-1]

    yield start
    for one in started:
        one.stop()


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
def make_due(rows):
    """Returns a function that makes every delivery due now, whatever pause it has."""

    def make():
        rows("UPDATE webhooks SET paused_until = NULL")
        rows("UPDATE webhook_deliveries SET next_attempt_at = clock_timestamp() WHERE state = 'PENDING'")
        rows("UPDATE work_items SET next_attempt_at = clock_timestamp() WHERE lease IS NULL")

    return make


def settled(service, webhook, actor, count=1):
    """Wait until so many deliveries of an endpoint are settled, and return them."""

    def find():
        found = service.list_deliveries(webhook["id"], actor=actor, limit=100)["items"]
        return found if len([one for one in found if one["state"] != "PENDING"]) == count else None

    return eventually(find)


def attempted(service, webhook, actor, attempts):
    """Wait until the only delivery of an endpoint was attempted so often, and return it."""

    def find():
        found = service.list_deliveries(webhook["id"], actor=actor)["items"]
        return found[0] if [one["attempts"] for one in found] == [attempts] else None

    return eventually(find)


class TestSigning:
    def test_a_delivery_is_verified_by_the_reference_library(self, service, receiver, bus):
        actor, hook = customer(), receiver()
        webhook = service.create_webhook(url=hook.url, actor=actor)
        event = confirmed(actor)
        message_id = bus.publish(event)
        [delivery] = settled(service, webhook, actor)
        [got] = hook.received
        payload = Webhook(webhook["secret"]).verify(got.body, got.headers)
        assert payload == json.loads(got.body)
        assert (payload["type"], payload["data"]["order_id"]) == ("order.confirmed", str(event.order_id))
        assert payload["data"]["total_amount"] == "149.90"
        assert payload["timestamp"].endswith("Z")
        assert got.id == str(message_id) == delivery["event_id"]
        assert "." not in got.id
        assert got.headers["content-type"] == "application/json"
        assert abs(int(got.headers["webhook-timestamp"]) - time.time()) < 300
        with pytest.raises(WebhookVerificationError):
            Webhook(webhook["secret"]).verify(got.body + b" ", got.headers)

    def test_retries_have_the_same_id_and_a_new_timestamp(self, service, receiver, bus, make_due):
        statuses = [500, 200]
        actor, hook = customer(), receiver(lambda _: statuses.pop(0))
        webhook = service.create_webhook(url=hook.url, actor=actor)
        bus.publish(confirmed(actor))
        eventually(lambda: len(hook.received) == 1)
        attempted(service, webhook, actor, 1)
        first = int(hook.received[0].headers["webhook-timestamp"])
        eventually(lambda: time.time() >= first + 1)
        make_due()
        [delivery] = settled(service, webhook, actor)
        assert (delivery["state"], delivery["attempts"]) == ("DELIVERED", 2)
        one, two = hook.received
        assert (one.id, one.body) == (two.id, two.body)
        assert int(two.headers["webhook-timestamp"]) > first
        Webhook(webhook["secret"]).verify(two.body, two.headers)

    def test_during_a_rotation_both_secrets_verify(self, service, receiver, rows):
        actor, hook = customer(), receiver()
        webhook = service.create_webhook(url=hook.url, actor=actor)
        rotated = service.rotate_webhook_secret(webhook["id"], actor=actor)
        assert rotated["secret"] != webhook["secret"]
        assert rotated["old_secret_expires_at"]
        service.test_webhook(webhook["id"], actor=actor)
        got = eventually(lambda: hook.received)[0]
        assert len(got.headers["webhook-signature"].split(" ")) == 2
        for secret in (webhook["secret"], rotated["secret"]):
            Webhook(secret).verify(got.body, got.headers)
        rows("UPDATE webhooks SET old_secret_expires_at = clock_timestamp() - interval '1 s'")
        service.test_webhook(webhook["id"], actor=actor)
        later = eventually(lambda: hook.received[1:])[0]
        Webhook(rotated["secret"]).verify(later.body, later.headers)
        with pytest.raises(WebhookVerificationError):
            Webhook(webhook["secret"]).verify(later.body, later.headers)

    def test_the_secret_is_shown_once(self, service, receiver, caplog):
        actor = customer()
        webhook = service.create_webhook(url=receiver().url, actor=actor)
        assert webhook["secret"].startswith("whsec_")
        shown = [service.get_webhook(webhook["id"], actor=actor), service.list_webhooks(actor=actor)["items"][0]]
        shown.append(service.update_webhook(webhook["id"], is_enabled=False, actor=actor))
        assert not any("secret" in one for one in shown)
        assert webhook["secret"] not in caplog.text


class TestWhoReceivesWhat:
    def test_a_user_receives_the_events_of_the_own_orders_and_payments(self, service, receiver, bus):
        actor, other, hook = customer(), customer(), receiver()
        webhook = service.create_webhook(url=hook.url, actor=actor)
        order = created(actor)
        refund = {"order_id": order.order_id, "payment_id": new_id()}
        events = [
            order,
            confirmed(actor),
            OrderShipped(order_id=order.order_id, user_id=order.user_id, carrier="PTT"),
            OrderCancelled(order_id=order.order_id, user_id=order.user_id, reason=CancelReason.USER),
            PaymentRefunded(user_id=order.user_id, **refund),
            PaymentPartiallyRefunded(
                user_id=order.user_id, amount=Decimal(1), remaining=Decimal(2), currency="TRY", **refund
            ),
        ]
        for event in (confirmed(other), created(other), *events):
            bus.publish(event)
        settled(service, webhook, actor, len(events))
        assert sorted(json.loads(one.body)["type"] for one in hook.received) == sorted(
            event.event_type for event in events
        )
        assert other["user_id"].encode() not in b"".join(one.body for one in hook.received)

    def test_only_what_was_subscribed(self, service, receiver, bus):
        actor, hook = customer(), receiver()
        webhook = service.create_webhook(url=hook.url, events=["payment.*", "order.confirmed"], actor=actor)
        bus.publish(created(actor))
        bus.publish(confirmed(actor))
        bus.publish(PaymentRefunded(order_id=new_id(), payment_id=new_id(), user_id=actor["user_id"]))
        settled(service, webhook, actor, 2)
        assert not hook.of_type("order.created")

    def test_an_administrator_receives_the_events_of_the_shop(self, service, receiver, bus):
        admin, own = receiver(), receiver()
        actor = administrator()
        shop = service.create_webhook(url=admin.url, actor=actor)
        private = service.create_webhook(url=own.url, scope="OWN", actor=actor)
        assert (shop["scope"], private["scope"]) == ("SHOP", "OWN")
        bus.publish(created(customer()))
        bus.publish(StockLow(product_id=new_id(), product_sku="TEA", available=2, threshold=5))
        bus.publish(created(actor))
        settled(service, shop, actor, 3)
        settled(service, private, actor, 1)
        assert len(admin.of_type("inventory.stock_low")) == 1

    def test_customers_may_not_subscribe_to_the_shop(self, service):
        for wanted in ({"scope": "SHOP"}, {"events": ["inventory.stock_low"]}):
            with pytest.raises(PermissionDenied):
                service.create_webhook(url=DEAD, actor=customer(), **wanted)
        actor = customer()
        webhook = service.create_webhook(url=DEAD, actor=actor)
        with pytest.raises(PermissionDenied):
            service.update_webhook(webhook["id"], events=["inventory.stock_low"], actor=actor)

    def test_who_is_no_administrator_any_more_receives_the_shop_no_more(self, service, receiver, bus, rows):
        actor, hook = administrator(), receiver()
        webhook = service.create_webhook(url=hook.url, actor=actor)
        now = datetime.now(UTC)
        bus.publish(UserUpdated(user_id=actor["user_id"], roles=("customer",), is_active=True, at=now))
        eventually(lambda: service.get_webhook(webhook["id"], actor=actor)["disabled_reason"] == "NOT_ADMIN")
        older = now - timedelta(seconds=1)  # it arrives later, and changes nothing
        bus.publish(UserUpdated(user_id=actor["user_id"], roles=("customer", "admin"), is_active=True, at=older))
        eventually(lambda: len(rows("SELECT FROM inbox WHERE handler = 'on_user_updated'")) == 2)
        assert rows("SELECT is_admin FROM recipients") == [(False,)]
        with pytest.raises(PermissionDenied):
            service.update_webhook(webhook["id"], is_enabled=True, actor=actor | {"roles": ["customer"]})
        bus.publish(created(customer()))
        [notice] = eventually(lambda: service.list_notifications(actor=actor)["items"])
        assert notice["kind"] == "webhook.disabled"
        assert hook.received == []

    def test_a_duplicate_of_an_event_is_delivered_once(self, service, receiver, bus):
        actor, hook = customer(), receiver()
        webhook = service.create_webhook(url=hook.url, actor=actor)
        event = confirmed(actor)
        message_id = bus.publish(event)
        settled(service, webhook, actor)
        bus.publish(event, message_id=message_id)
        bus.publish(created(actor))
        settled(service, webhook, actor, 2)
        assert len(hook.received) == 2


class TestOwners:
    def test_endpoints_and_deliveries_belong_to_their_user(self, service, receiver, bus):
        actor, hook = customer(), receiver()
        webhook = service.create_webhook(url=hook.url, actor=actor)
        bus.publish(confirmed(actor))
        [delivery] = settled(service, webhook, actor)
        for stranger in (customer(), administrator()):
            assert service.list_webhooks(actor=stranger)["items"] == []
            for call in (
                lambda actor: service.get_webhook(webhook["id"], actor=actor),
                lambda actor: service.update_webhook(webhook["id"], is_enabled=False, actor=actor),
                lambda actor: service.rotate_webhook_secret(webhook["id"], actor=actor),
                lambda actor: service.test_webhook(webhook["id"], actor=actor),
                lambda actor: service.replay_events(webhook["id"], since="2026-01-01T00:00:00Z", actor=actor),
                lambda actor: service.list_deliveries(webhook["id"], actor=actor),
                lambda actor: service.delete_webhook(webhook["id"], actor=actor),
            ):
                with pytest.raises(WebhookNotFound):
                    call(stranger)
            for call in (service.get_delivery, service.retry_delivery):
                with pytest.raises(DeliveryNotFound):
                    call(delivery["id"], actor=stranger)
        assert service.get_webhook(webhook["id"])["id"] == webhook["id"], "the operator sees all"

    def test_their_number_is_bounded(self, service):
        actor = customer()
        for _ in range(MAX_WEBHOOKS):
            service.create_webhook(url=DEAD, actor=actor)
        with pytest.raises(TooManyWebhooks):
            service.create_webhook(url=DEAD, actor=actor)
        assert len(service.list_webhooks(actor=actor)["items"]) == MAX_WEBHOOKS
        service.create_webhook(url=DEAD, actor=customer())

    @pytest.mark.parametrize("url", ["http://10.0.0.1/", "https://user@example.com/", "x", "https://nowhere.invalid/"])
    def test_a_url_that_no_request_may_go_to_is_refused(self, service, url):
        actor = customer()
        with pytest.raises(ValidationFailed) as refused:
            service.create_webhook(url=url, actor=actor)
        assert refused.value.errors[0].field == "url"
        webhook = service.create_webhook(url=DEAD, actor=actor)
        with pytest.raises(ValidationFailed):
            service.update_webhook(webhook["id"], url=url, actor=actor)

    def test_a_repeated_registration_is_one(self, service):
        actor = customer()
        first = service.create_webhook(url=DEAD, actor=actor, idempotency_key="k")
        assert service.create_webhook(url=DEAD, actor=actor, idempotency_key="k") == first
        assert len(service.list_webhooks(actor=actor)["items"]) == 1

    def test_a_change_needs_the_tag_that_was_read(self, service):
        actor = customer()
        webhook = service.create_webhook(url=DEAD, actor=actor)
        read = service.get_webhook(webhook["id"], actor=actor)
        changed = service.update_webhook(webhook["id"], events=["order.*"], if_match=[etag(read)], actor=actor)
        assert changed["events"] == ["order.*"]
        with pytest.raises(PreconditionFailed):
            service.update_webhook(webhook["id"], events=["*"], if_match=[etag(read)], actor=actor)

    def test_a_deleted_endpoint_receives_nothing(self, service, receiver, bus, rows):
        actor, hook, other = customer(), receiver(), receiver()
        webhook = service.create_webhook(url=hook.url, actor=actor)
        kept = service.create_webhook(url=other.url, actor=actor)
        assert service.delete_webhook(webhook["id"], actor=actor) is None
        with pytest.raises(WebhookNotFound):
            service.delete_webhook(webhook["id"], actor=actor)
        bus.publish(confirmed(actor))
        settled(service, kept, actor)
        assert hook.received == []

    def test_a_deleted_account_leaves_nothing(self, service, receiver, bus, rows):
        actor, hook = customer(), receiver()
        user_id = actor["user_id"]
        webhook = service.create_webhook(url=hook.url, actor=actor)
        bus.publish(UserRegistered(user_id=user_id, email="ada@example.com"))
        bus.publish(confirmed(actor))
        settled(service, webhook, actor)
        bus.publish(UserDeleted(user_id=user_id))
        eventually(lambda: rows("SELECT FROM recipients WHERE deleted_at IS NOT NULL"))
        for event in (UserRegistered(user_id=user_id, email="ada@example.com"), created(actor)):  # late ones
            bus.publish(event)
        eventually(lambda: len(rows("SELECT FROM notifications")) == 3)
        for table in ("webhooks", "webhook_deliveries", "webhook_events"):
            assert rows(f"SELECT FROM {table}") == []
        assert rows("SELECT email FROM recipients") == [(None,)]
        assert set(rows("SELECT subject, body, in_app FROM notifications")) == {("", "", False)}
        assert service.list_notifications(actor=actor)["items"] == []
        [(notification_id,)] = rows("SELECT id FROM notifications LIMIT 1")
        with pytest.raises(NotificationNotFound):
            service.mark_read(str(notification_id), actor=actor)
        with pytest.raises(PermissionDenied):
            service.create_webhook(url=hook.url, actor=actor)


class TestFailures:
    @pytest.mark.parametrize("status", [301, 307, 400, 404, 500, 503])
    def test_everything_but_2xx_is_repeated(self, service, receiver, bus, status):
        actor, hook = customer(), receiver(lambda _: (status, {"Location": DEAD}, b"no"))
        webhook = service.create_webhook(url=hook.url, actor=actor)
        bus.publish(confirmed(actor))
        delivery = attempted(service, webhook, actor, 1)
        assert (delivery["state"], delivery["response_status"], delivery["response_body"]) == ("PENDING", status, "no")
        assert str(status) in delivery["error"]
        assert delivery["duration_ms"] >= 0
        assert service.get_webhook(webhook["id"], actor=actor)["failing_since"]

    def test_no_response_is_repeated(self, service, bus):
        actor = customer()
        webhook = service.create_webhook(url=DEAD, actor=actor)
        bus.publish(confirmed(actor))
        delivery = attempted(service, webhook, actor, 1)
        assert (delivery["response_status"], delivery["response_body"]) == (None, "")
        assert "no connection" in delivery["error"]

    def test_the_pauses_grow_as_promised_and_end(self, service, receiver, bus, make_due, rows):
        actor, hook = customer(), receiver(lambda _: 500)
        webhook = service.create_webhook(url=hook.url, actor=actor)
        bus.publish(confirmed(actor))
        for attempts, pause in enumerate(rules.RETRY_SECONDS, 1):
            attempted(service, webhook, actor, attempts)
            [(seconds,)] = rows(
                "SELECT extract(epoch FROM next_attempt_at - last_attempt_at)::float FROM webhook_deliveries"
            )
            assert pause - 0.1 <= seconds <= pause * (1 + rules.JITTER) + 0.1
            make_due()
        [delivery] = settled(service, webhook, actor)
        assert (delivery["state"], delivery["attempts"]) == ("FAILED", len(rules.RETRY_SECONDS) + 1)
        assert delivery["next_attempt_at"] is None
        assert len({one.id for one in hook.received}) == 1

    def test_retry_after_is_honoured(self, service, receiver, bus, rows):
        actor, hook = customer(), receiver(lambda _: (429, {"Retry-After": "60"}, b""))
        webhook = service.create_webhook(url=hook.url, actor=actor)
        bus.publish(confirmed(actor))
        attempted(service, webhook, actor, 1)
        [(seconds,)] = rows(
            "SELECT extract(epoch FROM next_attempt_at - last_attempt_at)::float FROM webhook_deliveries"
        )
        [(pause,)] = rows("SELECT extract(epoch FROM paused_until - clock_timestamp())::float FROM webhooks")
        assert 59 < seconds < 61
        assert 0 < pause <= 60

    def test_gone_disables_at_once_and_tells_the_owner(self, service, receiver, bus):
        actor, hook = customer(), receiver(lambda _: 410)
        webhook = service.create_webhook(url=hook.url, actor=actor)
        bus.publish(confirmed(actor))
        eventually(lambda: service.get_webhook(webhook["id"], actor=actor)["disabled_reason"] == "GONE")
        notices = [one for one in service.list_notifications(actor=actor)["items"] if one["kind"] == "webhook.disabled"]
        assert len(notices) == 1
        assert hook.url in notices[0]["body"]
        with pytest.raises(WebhookDisabled):
            service.test_webhook(webhook["id"], actor=actor)

    def test_five_days_of_failures_disable(self, service, receiver, bus, rows, make_due):
        actor, hook = customer(), receiver(lambda _: 500)
        webhook = service.create_webhook(url=hook.url, actor=actor)
        bus.publish(confirmed(actor))
        attempted(service, webhook, actor, 1)
        rows("UPDATE webhooks SET failing_since = clock_timestamp() - interval '119 hours'")
        make_due()
        attempted(service, webhook, actor, 2)
        assert service.get_webhook(webhook["id"], actor=actor)["is_enabled"]
        rows("UPDATE webhooks SET failing_since = clock_timestamp() - interval '120 hours'")
        make_due()
        eventually(lambda: service.get_webhook(webhook["id"], actor=actor)["disabled_reason"] == "FAILING")
        assert "webhook.disabled" in {one["kind"] for one in service.list_notifications(actor=actor)["items"]}

    def test_a_success_ends_the_five_days(self, service, receiver, bus, rows, make_due):
        statuses = [500, 200]
        actor, hook = customer(), receiver(lambda _: statuses.pop(0))
        webhook = service.create_webhook(url=hook.url, actor=actor)
        bus.publish(confirmed(actor))
        attempted(service, webhook, actor, 1)
        rows("UPDATE webhooks SET failing_since = clock_timestamp() - interval '1000 hours'")
        make_due()
        settled(service, webhook, actor)
        read = service.get_webhook(webhook["id"], actor=actor)
        assert (read["is_enabled"], read["failing_since"]) == (True, None)

    def test_a_clock_that_was_set_back_delays_no_first_attempt(self, service, receiver, bus, rows):
        """The delivery and its work item were stored while the clock of the database was an hour ahead."""
        actor, hook = customer(), receiver()
        webhook = service.create_webhook(url=hook.url, actor=actor)
        bus.publish(confirmed(actor))
        settled(service, webhook, actor)
        later = "clock_timestamp() + interval '1 hour'"
        rows(f"UPDATE webhooks SET paused_until = {later}")
        rows(f"UPDATE webhook_deliveries SET state = 'PENDING', attempts = 0, next_attempt_at = {later}")
        rows(f"INSERT INTO work_items (key, kind, next_attempt_at) SELECT id, 'webhooks', {later} FROM webhooks")
        eventually(lambda: len(hook.received) == 2)

    def test_a_clock_that_was_set_back_by_a_day_delays_no_repetition(self, service, receiver, bus, rows):
        statuses = [500, 200]
        actor, hook = customer(), receiver(lambda _: statuses.pop(0))
        webhook = service.create_webhook(url=hook.url, actor=actor)
        bus.publish(confirmed(actor))
        attempted(service, webhook, actor, 1)
        later = "clock_timestamp() + interval '1 day'"
        rows(f"UPDATE webhooks SET paused_until = {later}")
        rows(f"UPDATE webhook_deliveries SET next_attempt_at = {later}")
        rows(f"UPDATE work_items SET next_attempt_at = {later} WHERE lease IS NULL")
        [delivery] = settled(service, webhook, actor)
        assert delivery["state"] == "DELIVERED"

    def test_a_large_response_is_kept_up_to_its_bound(self, service, receiver, bus):
        actor, hook = customer(), receiver(lambda _: (200, {}, b"\x00\xff" + b"x" * 100_000))
        webhook = service.create_webhook(url=hook.url, actor=actor)
        bus.publish(confirmed(actor))
        [delivery] = settled(service, webhook, actor)
        assert len(delivery["response_body"]) == 1000
        whole = service.get_delivery(delivery["id"], actor=actor)
        assert 19_990 < len(whole["response_body"]) <= 20_000


class TestByHand:
    def test_a_ping(self, service, receiver):
        actor, hook = customer(), receiver()
        webhook = service.create_webhook(url=hook.url, events=["payment.*"], actor=actor)
        ping = service.test_webhook(webhook["id"], actor=actor)
        assert (ping["state"], ping["event"]) == ("PENDING", "webhook.test")
        [delivery] = settled(service, webhook, actor)
        assert delivery["id"] == ping["id"]
        [got] = hook.received
        assert Webhook(webhook["secret"]).verify(got.body, got.headers)["type"] == "webhook.test"

    def test_a_failed_delivery_is_retried(self, service, receiver, bus, rows):
        statuses = [500, 200]
        actor, hook = customer(), receiver(lambda _: statuses.pop(0))
        webhook = service.create_webhook(url=hook.url, actor=actor)
        bus.publish(confirmed(actor))
        delivery = attempted(service, webhook, actor, 1)
        rows("UPDATE webhook_deliveries SET state = 'FAILED', attempts = 8")
        again = service.retry_delivery(delivery["id"], actor=actor)
        assert (again["state"], again["attempts"]) == ("PENDING", 0)
        [delivery] = settled(service, webhook, actor)
        assert delivery["state"] == "DELIVERED"

    def test_a_range_is_replayed_with_the_same_ids(self, service, receiver, bus, rows):
        actor, hook = customer(), receiver()
        webhook = service.create_webhook(url=hook.url, actor=actor)
        first, second, third = (bus.publish(created(actor)) for _ in range(3))
        settled(service, webhook, actor, 3)
        for message_id, hours in ((first, 3), (second, 2), (third, 1)):
            earlier = "occurred_at = clock_timestamp() - make_interval(hours => :hours)"
            rows(f"UPDATE webhook_events SET {earlier} WHERE id = :id", hours=hours, id=message_id)
        now = datetime.now(UTC)
        since, until = (now - timedelta(hours=2.5)).isoformat(), (now - timedelta(hours=1.5)).isoformat()
        result = service.replay_events(webhook["id"], since=since, until=until, actor=actor)
        assert result == {"scheduled": 1, "continue_since": None}
        eventually(lambda: len(hook.received) == 4)
        assert hook.received[3].id == str(second)
        assert hook.received[3].body in [one.body for one in hook.received[:3]]
        [delivery] = [one for one in settled(service, webhook, actor, 3) if one["event_id"] == str(second)]
        assert delivery["attempts"] == 1

    def test_what_was_missed_while_disabled_is_replayed(self, service, receiver, bus, rows):
        actor, hook = customer(), receiver()
        webhook = service.create_webhook(url=hook.url, actor=actor)
        began = datetime.now(UTC) - timedelta(minutes=1)
        service.update_webhook(webhook["id"], is_enabled=False, actor=actor)
        bus.publish(confirmed(actor))
        eventually(lambda: rows("SELECT FROM webhook_events"))
        service.update_webhook(webhook["id"], is_enabled=True, actor=actor)
        assert service.replay_events(webhook["id"], since=began.isoformat(), actor=actor)["scheduled"] == 1
        settled(service, webhook, actor)
        assert len(hook.received) == 1

    def test_a_replay_is_bounded_and_says_where_to_go_on(self, service, receiver, bus, monkeypatch):
        monkeypatch.setattr(webhooks, "MAX_REPLAYED", 2)
        actor, hook = customer(), receiver()
        webhook = service.create_webhook(url=hook.url, actor=actor)
        for _ in range(3):
            bus.publish(created(actor))
        settled(service, webhook, actor, 3)
        first = service.replay_events(webhook["id"], since="2026-01-01T00:00:00Z", actor=actor)
        assert first["scheduled"] == 2
        rest = service.replay_events(webhook["id"], since=first["continue_since"], actor=actor)
        assert (rest["scheduled"] >= 1, rest["continue_since"]) == (True, None)
        eventually(lambda: len(hook.received) >= 5)


class TestRetention:
    def test_old_deliveries_are_deleted(self, service, receiver, bus, rows, shared_services):
        actor, hook = customer(), receiver()
        webhook = service.create_webhook(url=hook.url, actor=actor)
        for _ in range(2):
            bus.publish(created(actor))
        settled(service, webhook, actor, 2)
        old = "occurred_at = occurred_at - interval '31 days'"
        [(event_id,)] = rows(
            f"UPDATE webhook_events SET {old} WHERE id = (SELECT id FROM webhook_events LIMIT 1) RETURNING id"
        )
        rows(f"UPDATE webhook_deliveries SET {old} WHERE event_id = :id", id=event_id)
        container = shared_services.containers["notifications"]
        with entrypoint_hook(container, "forget_old_deliveries") as run:
            run(True)
        assert len(rows("SELECT FROM webhook_events")) == len(rows("SELECT FROM webhook_deliveries")) == 1


class TestIsolation:
    @pytest.fixture
    def places(self, service, shared_services, monkeypatch):
        """How many endpoints of each kind have a place: few."""
        entrypoints = shared_services.containers["notifications"].entrypoints
        runner = next(one for one in entrypoints if isinstance(one, WorkItems) and deliveries.SLOW in one.lanes)
        for lane in runner.lanes.values():
            monkeypatch.setattr(lane, "limits", replace(lane.limits, concurrency=2, deadline=600.0, prompt=0.1))
        return 2 * (1 + work_items_runner.SLOW_TO_PROMPT)

    def test_a_dead_endpoint_with_many_deliveries_delays_no_other(
        self, service, places, receiver, bus, rows, make_due, monkeypatch
    ):
        """More endpoints hang than have a place, each with many deliveries."""
        monkeypatch.setattr(client, "TOTAL_SECONDS", 600.0)
        first, second = eventlet.Event(), eventlet.Event()
        dead, hook = receiver(lambda _: first.wait() or 500), receiver()
        actors, actor = [customer() for _ in range(places + 4)], customer()
        for one in actors:
            service.create_webhook(url=dead.url, actor=one)
        service.create_webhook(url=hook.url, actor=actor)
        rows("UPDATE webhooks SET slow_until = NULL")
        for _ in range(5):
            for one in actors:
                bus.publish(created(one))
        executing = "SELECT FROM work_items WHERE lease IS NOT NULL"
        eventually(lambda: len(rows(executing)) == places)
        first.send()
        # After their first failure, they have places of their own.
        eventually(lambda: len(rows("SELECT FROM webhooks WHERE failures > 0")) == len(actors))
        dead.respond = lambda _: second.wait() or 500
        make_due()
        eventually(lambda: dead.running == places)
        bus.publish(confirmed(actor))
        eventually(lambda: hook.received)
        assert dead.running == places, "it waited until one of the others ended"
        second.send()

    def test_slow_endpoints_delay_no_other(self, service, places, receiver, bus, rows, monkeypatch):
        """They are more than there are places, and each responds in the end: none of them fails."""
        monkeypatch.setattr(client, "TOTAL_SECONDS", 600.0)
        door = eventlet.Event()
        hanging, hook = receiver(lambda _: door.wait() or 200), receiver()
        slow, actor = [customer() for _ in range(places + 2)], customer()
        for one in slow:
            service.create_webhook(url=hanging.url, actor=one)
        service.create_webhook(url=hook.url, actor=actor)
        rows("UPDATE webhooks SET slow_until = NULL WHERE url = :url", url=hook.url)
        for one in slow:
            bus.publish(created(one))
        eventually(lambda: hanging.running == places)
        bus.publish(created(actor))
        eventually(lambda: hook.received)
        assert hanging.running == places, "it waited for the others"
        door.send()
        eventually(lambda: len(rows("SELECT FROM webhook_deliveries WHERE state = 'DELIVERED'")) == places + 3)

    def test_a_slow_endpoint_has_a_place_of_its_own_for_a_while(self, service, receiver, bus, rows, monkeypatch):
        """Whatever it does in between: else one that is slow now and then would hold a place of the others again."""
        monkeypatch.setattr(deliveries, "PROMPT_SECONDS", 0.05)
        actor, hook = customer(), receiver(lambda _: eventlet.sleep(0.2) or 200)
        webhook = service.create_webhook(url=hook.url, actor=actor)
        kind = "SELECT slow_until > clock_timestamp() + interval '9 minutes' FROM webhooks"
        assert rows(kind) == [(True,)], "a new one is not known"
        rows("UPDATE webhooks SET slow_until = NULL")
        bus.publish(created(actor))
        eventually(lambda: rows(kind) == [(True,)])
        settled(service, webhook, actor)
        hook.respond = lambda _: 500
        bus.publish(created(actor))
        eventually(lambda: rows("SELECT FROM webhooks WHERE failures = 1"))
        assert rows(kind) == [(True,)]
        service.update_webhook(webhook["id"], is_enabled=True, actor=actor)
        assert rows(kind) == [(True,)], "its owner cannot end it"

    def test_a_failing_endpoint_rests_between_single_attempts(self, service, receiver, bus, rows):
        actor, hook = customer(), receiver(lambda _: 500)
        service.create_webhook(url=hook.url, actor=actor)
        bus.publish(created(actor))
        eventually(lambda: rows("SELECT FROM webhooks WHERE failures >= 1"))
        rows("UPDATE webhooks SET failures = 7, paused_until = clock_timestamp() + interval '1 hour'")
        for _ in range(20):
            bus.publish(created(actor))
        eventually(lambda: len(rows("SELECT FROM webhook_deliveries")) == 21)
        eventually(lambda: not rows("SELECT FROM work_items WHERE next_attempt_at < clock_timestamp()"))
        assert len(hook.received) <= 2
        rows("UPDATE webhooks SET paused_until = NULL")
        hook.respond = lambda _: 200
        rows("UPDATE work_items SET next_attempt_at = clock_timestamp() WHERE lease IS NULL")
        eventually(lambda: len(rows("SELECT FROM webhook_deliveries WHERE state = 'DELIVERED'")) >= 20)

    def test_a_locked_endpoint_delays_only_itself(self, service, receiver, bus, rows):
        locked, other, hook, waiting = customer(), customer(), receiver(), []
        webhook = service.create_webhook(url=hook.url, actor=locked)
        unlocked = service.create_webhook(url=receiver().url, actor=other)

        def is_settled():
            waiting.extend(rows("SELECT query FROM pg_stat_activity WHERE wait_event_type = 'Lock'"))
            [delivery] = service.list_deliveries(unlocked["id"], actor=other)["items"] or [{"state": "none"}]
            return delivery["state"] == "DELIVERED"

        with database("notifications").begin() as connection:
            connection.execute(text("SELECT FROM webhooks WHERE id = :id FOR UPDATE"), {"id": webhook["id"]})
            bus.publish(created(locked))
            eventually(lambda: hook.received)
            bus.publish(created(other))
            eventually(is_settled)
        assert waiting == []
        settled(service, webhook, locked)
        assert len(hook.received) == 1

    def test_requests_to_one_endpoint_are_bounded(self, service, receiver, bus):
        actor, hook = customer(), receiver(lambda _: eventlet.sleep(0.2) or 200)
        webhook = service.create_webhook(url=hook.url, actor=actor)
        for _ in range(60):
            bus.publish(created(actor))
        settled(service, webhook, actor, 60)
        assert 1 < hook.most_running <= deliveries.PLACES

    def test_too_many_waiting_deliveries_disable(self, service, bus, rows, monkeypatch):
        monkeypatch.setattr(webhooks, "MAX_WAITING", 3)
        actor = customer()
        webhook = service.create_webhook(url=DEAD, actor=actor)
        for _ in range(5):
            bus.publish(created(actor))
        eventually(lambda: len(rows("SELECT FROM webhook_deliveries WHERE state = 'PENDING'")) == 5)
        with database("notifications").connect() as connection:
            from sqlalchemy.orm import Session

            with Session(connection) as session:
                assert webhooks.disable_backlogs(session, with_mails=False) == 1
                session.commit()
        assert service.get_webhook(webhook["id"], actor=actor)["disabled_reason"] == "BACKLOG"
        with pytest.raises(InvalidState):
            service.test_webhook(webhook["id"], actor=actor)
