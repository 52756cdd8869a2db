"""The access rules of the API: for each operation, which callers may use it on which resources.

test_access.py takes the operations from the OpenAPI document. It fails for an operation without a case in this file.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from contracts.ids import new_id
from tests.support import Caller, eventually

CALLERS = ("anonymous", "ayse", "burak", "admin", "logged_out")
CUSTOMERS = ("ayse", "burak")
LOGGED_OUT = "logged_out"
"""An administrator who sends the access token of a session that has ended."""
PASSWORD = "a long password 7"
OTHER_PASSWORD = "another long password 7"
OK, ANONYMOUS, FORBIDDEN, MISSING = "ok", 401, 403, 404
REVOKED = "TOKEN_REVOKED"


def public(_caller, _whose):
    """Every caller is allowed; a token is ignored."""
    return OK


def browsed(_caller, _whose):
    """Every caller is allowed; but if a token is sent, it must be valid."""
    return OK


def of_users(caller, _whose):
    """Every user is allowed, and sees their own resources."""
    return ANONYMOUS if caller == "anonymous" else OK


def of_owners(caller, whose):
    """The owner and the administrator are allowed; other users get 404."""
    if caller == "anonymous":
        return ANONYMOUS
    return OK if whose == "own" or (caller == "admin" and whose == "foreign") else MISSING


def private(caller, whose):
    """Only the owner is allowed: an administrator does not read the notifications of others."""
    if caller == "anonymous":
        return ANONYMOUS
    return OK if whose == "own" else MISSING


def of_admins(caller, whose):
    """Only an administrator is allowed; other users get 403, whether the resource exists or not."""
    if caller == "anonymous":
        return ANONYMOUS
    if caller in CUSTOMERS:
        return FORBIDDEN
    return MISSING if whose == "missing" else OK


def active_or_admin(caller, whose):
    """Every caller may see an active product ("own"); only the administrator sees an inactive one ("foreign")."""
    if whose == "missing":
        return MISSING
    return OK if whose == "own" or caller == "admin" else MISSING


def any_token(_caller, whose):
    """Every caller is allowed; only the token in the body is checked."""
    return OK if whose != "missing" else 401


def needs_a_mail(_caller, _whose):
    """Every caller is allowed; but only the token of a mail is accepted, and this one is from none."""
    return 401


def needs_a_cookie(_caller, _whose):
    """Every caller is allowed; but only the cookie of a session is accepted, and there is none."""
    return 401


def needs_the_password(_caller, _whose):
    """Only the user may do it, with the password; this one is another."""
    return 401


READ_NO_TOKEN = (public, any_token, needs_a_mail, needs_a_cookie)


@dataclass(frozen=True)
class Case:
    """The request of one operation, and the rule for its expected outcome.

    `thing(world, owner)` creates or finds the resource of an owner. It returns the id for the path, or the argument of
    `body` if the path has no id. `missing()` returns the id of a resource that does not exist. An operation without
    `thing` is not about one resource.
    """

    rule: Callable[[str, str], Any]
    thing: Callable[[Any, str], str] | None = None
    body: Callable[[Any], dict[str, Any]] | None = None
    file: str = ""
    """The CSV file that an operation takes instead of JSON."""
    missing: Callable[[], str] = field(default=lambda: str(new_id()))

    def expected(self, caller, whose):
        """Return the expected outcome. A token of an ended session is refused unless the operation reads no token."""
        if caller == LOGGED_OUT and self.rule not in READ_NO_TOKEN:
            return REVOKED
        return self.rule(caller, whose)

    @property
    def whose(self):
        return ("own", "foreign", "missing") if self.thing else ("own",)


def unique():
    return os.urandom(6).hex()


class World:
    """Two customers and an administrator, each with an order, its payment and its notifications."""

    def __init__(self, shop, bus):
        self.shop, self.bus, self._things = shop, bus, {}
        self.sessions = {name: self._register() for name in CUSTOMERS}
        self.tea = shop.product(stock=1_000)
        self.unsold = shop.product()
        shop.admin.must("PATCH", f"/products/{self.unsold['id']}", {"is_active": False})
        login = {"email": "admin@example.com", "password": "Demo-pass-2026!"}
        self.sessions["admin"] = shop.admin.must("POST", "/users/login", login)
        self.orders = {name: self.order(name) for name in self.sessions}
        self.sessions[LOGGED_OUT] = self._ended()

    def thing(self, case, owner, *, fresh):
        """Return this owner's resource for a case: a new one if `fresh`, else that of an earlier request if any."""
        key = case.thing, owner
        if fresh or key not in self._things:
            self._things[key] = case.thing(self, owner)
        return self._things[key]

    def _register(self):
        account = {"email": f"{unique()}@example.com", "password": PASSWORD}
        return self.shop.admin.must("POST", "/users/register", account)

    def _ended(self):
        """Return a session of the administrator that has ended. Waits until the gateway refuses its token."""
        session = self.session("admin")
        client = self.shop.client(session["access_token"])
        client.must("POST", "/users/logout", {"refresh_token": session["refresh_token"]})
        eventually(lambda: client.request("GET", "/users/me")[0] == ANONYMOUS)
        return session

    def token(self, caller):
        """The access token of a caller; None for the anonymous caller."""
        return None if caller == "anonymous" else self.sessions[caller]["access_token"]

    def session(self, owner):
        """A new session of this user, which a test may end without effect on other tests."""
        login = {"email": self.sessions[owner]["user"]["email"], "password": PASSWORD}
        if owner == "admin":
            login["password"] = "Demo-pass-2026!"
        return self.shop.admin.must("POST", "/users/login", login)

    def headers(self, caller):
        """The headers that identify a caller."""
        token = self.token(caller)
        return {} if token is None else {"Authorization": f"Bearer {token}"}

    def order(self, owner):
        """The id of a new order of this user."""
        body = {"items": [{"product_id": self.tea["id"], "quantity": 1}]}
        client = self.shop.client(self.token(owner))
        return client.must("POST", "/orders", body)["id"]

    def product_import(self, _owner):
        """The id of an import of products."""
        return Caller().catalog.begin_import(mode="skip_bad", format="csv")["id"]

    def stock_import(self, _owner):
        """The id of an import of stock."""
        return Caller().inventory.begin_import(mode="skip_bad", format="csv")["id"]

    def confirmed(self, owner):
        """The id of an order that can be shipped."""
        made = self.order(owner)
        self.shop.reaches({"id": made}, "CONFIRMED")
        return made

    def shipped(self, owner):
        """The id of an order that can be delivered."""
        made = self.confirmed(owner)
        self.shop.admin.must("POST", f"/orders/{made}/ship")
        return made

    def payment(self, owner):
        """The id of a payment of this user."""
        return eventually(lambda: self.shop.payment({"id": self.orders[owner]}))["id"]

    def captured(self, owner):
        """The id of a captured payment of this user, of which nothing was refunded yet."""
        made = self.confirmed(owner)
        return eventually(lambda: self._captured(made))["id"]

    def _captured(self, order_id):
        payment = self.shop.payment({"id": order_id})
        return payment if payment and payment["status"] == "CAPTURED" else None

    def notification(self, owner):
        """The id of a notification of this user."""
        client = self.shop.client(self.token(owner))
        return eventually(lambda: client.must("GET", "/notifications")["items"])[0]["id"]

    def webhook(self, owner):
        """The id of a new endpoint of this user, which refuses connections. Older ones are deleted."""
        client = self.shop.client(self.token(owner))
        for old in client.must("GET", "/webhooks")["items"][3:]:
            client.must("DELETE", f"/webhooks/{old['id']}")
        return client.must("POST", "/webhooks", _webhook(self))["id"]

    def delivery(self, owner):
        """The id of a delivery to an endpoint of this user."""
        return self.shop.client(self.token(owner)).must("POST", f"/webhooks/{self.webhook(owner)}/test")["id"]

    def dead_letter(self, _owner):
        """The id of a new dead letter."""
        message_id = str(new_id())
        self.bus.publish_raw("notifications.on_order_shipped", "{", exchange="", message_id=message_id)

        def found():
            letters = self.shop.get("/admin/dead-letters?service=notifications&limit=100")["items"]
            return next((letter["id"] for letter in letters if letter["message_id"] == message_id), None)

        return eventually(found)


def _product(_world):
    return {"sku": f"M-{unique()}", "name": "Thing", "price": "1.00"}


def _stock(world):
    return {"product_id": world.tea["id"], "product_sku": world.tea["sku"], "quantity": 1_000_000}


def _basket(world):
    return {"items": [{"product_id": world.tea["id"], "quantity": 1}]}


def _webhook(_world):
    return {"url": "http://127.0.0.77:9999/"}


def _credentials(world):
    return {"email": world.sessions["ayse"]["user"]["email"], "password": PASSWORD}


def _user(world, owner):
    return world.sessions[owner]["user"]["id"]


def _order(world, owner):
    return world.orders[owner]


def _product_of(world, owner):
    """Products have no owner: an active product counts as the caller's own, an inactive one as foreign."""
    return world.unsold["id"] if owner == "foreign" else world.tea["id"]


def _stock_of(world, _owner):
    return world.tea["id"]


def _refresh_token(world, owner):
    return world.session(owner)["refresh_token"]


def _access_token(world, owner):
    return world.token(owner)


def _invalid_token():
    return "no-token-of-ours"


CASES = {
    "register": Case(public, body=lambda _: {"email": f"{unique()}@example.com", "password": PASSWORD}),
    "login": Case(public, body=_credentials),
    "refresh_token": Case(
        any_token, _refresh_token, missing=_invalid_token, body=lambda token: {"refresh_token": token}
    ),
    "logout": Case(any_token, _refresh_token, missing=_invalid_token, body=lambda token: {"refresh_token": token}),
    "verify_token": Case(any_token, _access_token, missing=_invalid_token, body=lambda token: {"token": token}),
    "get_profile": Case(of_users),
    "update_profile": Case(of_users, body=lambda _: {"language": "tr"}),
    "export_account": Case(of_users),
    "change_password": Case(
        needs_the_password, body=lambda _: {"current_password": OTHER_PASSWORD, "new_password": PASSWORD}
    ),
    "delete_account": Case(needs_the_password, body=lambda _: {"password": OTHER_PASSWORD}),
    "request_password_reset": Case(public, body=lambda _: {"email": f"{unique()}@example.com"}),
    "confirm_password_reset": Case(
        needs_a_mail, body=lambda _: {"token": "no-token-of-ours", "new_password": PASSWORD}
    ),
    "verify_email": Case(needs_a_mail, body=lambda _: {"token": "no-token-of-ours"}),
    "request_email_verification": Case(of_users),
    "get_browser_state": Case(public),
    "put_session": Case(any_token, _refresh_token, missing=_invalid_token, body=lambda token: {"refresh_token": token}),
    "refresh_session": Case(needs_a_cookie),
    "delete_session": Case(public),
    "list_users": Case(of_admins),
    "get_user": Case(of_admins, _user),
    "update_user": Case(of_admins, _user, body=lambda _: {"is_active": True}),
    "get_jwks": Case(public),
    "list_products": Case(browsed),
    "get_product": Case(active_or_admin, _product_of),
    "import_products": Case(of_admins, file="sku,name,price\n"),
    "get_product_import": Case(of_admins, World.product_import),
    "stream_product_import": Case(of_admins, World.product_import),
    "export_products": Case(of_admins),
    "import_stock": Case(of_admins, file="product_sku,quantity\n"),
    "get_stock_import": Case(of_admins, World.stock_import),
    "stream_stock_import": Case(of_admins, World.stock_import),
    "create_product": Case(of_admins, body=_product),
    "replace_product": Case(of_admins, _product_of, body=lambda _: {"description": "Better."}),
    "update_product": Case(of_admins, _product_of, body=lambda _: {"description": "Best."}),
    "create_order": Case(of_users, body=_basket),
    "list_orders": Case(of_users),
    "get_order": Case(of_owners, _order),
    "get_timeline": Case(of_owners, _order),
    "stream_order": Case(of_owners, _order),
    "cancel_order": Case(of_owners, World.order),
    "ship_order": Case(of_admins, World.confirmed),
    "deliver_order": Case(of_admins, World.shipped),
    "list_stock": Case(of_admins),
    "get_stock": Case(of_admins, _stock_of),
    "create_stock": Case(of_admins, body=_stock),
    "set_stock": Case(of_admins, _stock_of, body=lambda _: {"quantity": 1_000_000}),
    "set_threshold": Case(of_admins, _stock_of, body=lambda _: {"low_stock": 10}),
    "adjust_stock": Case(of_admins, _stock_of, body=lambda _: {"delta": 1, "reason": "found"}),
    "list_movements": Case(of_admins, _stock_of),
    "list_payments": Case(of_users),
    "get_payment": Case(of_owners, World.payment),
    "get_payment_of_order": Case(of_owners, _order),
    "refund_payment": Case(of_admins, World.captured, body=lambda _: {"reason": "a complaint"}),
    "list_refunds": Case(of_admins, World.payment),
    "list_attempts": Case(of_admins, World.payment),
    "list_notifications": Case(of_users),
    "stream_notifications": Case(of_users),
    "mark_read": Case(private, World.notification),
    "get_preferences": Case(of_users),
    "set_preferences": Case(of_users, body=lambda _: {"items": []}),
    "create_webhook": Case(of_users, body=_webhook),
    "list_webhooks": Case(of_users),
    "get_webhook": Case(private, World.webhook),
    "update_webhook": Case(private, World.webhook, body=lambda _: {"events": ["*"]}),
    "delete_webhook": Case(private, World.webhook),
    "rotate_webhook_secret": Case(private, World.webhook),
    "test_webhook": Case(private, World.webhook),
    "replay_events": Case(private, World.webhook, body=lambda _: {"since": "2026-01-01T00:00:00Z"}),
    "list_deliveries": Case(private, World.webhook),
    "get_delivery": Case(private, World.delivery),
    "retry_delivery": Case(private, World.delivery),
    "list_sagas": Case(of_admins),
    "stream_events": Case(of_admins),
    "list_dead_letters": Case(of_admins),
    "replay_dead_letter": Case(of_admins, World.dead_letter),
    "discard_dead_letter": Case(of_admins, World.dead_letter),
    "group_dead_letters": Case(of_admins),
    "replay_dead_letters": Case(of_admins, body=lambda _world: {"ids": [str(new_id())]}),
    "discard_dead_letters": Case(of_admins, body=lambda _world: {"ids": [str(new_id())]}),
    "list_refused_events": Case(of_admins),
    "show_health": Case(of_admins),
    "check_consistency": Case(of_admins),
    "live": Case(public),
    "ready": Case(public),
    "get_openapi": Case(public),
    "get_docs": Case(public),
    "get_docs_script": Case(public),
    "get_docs_viewer": Case(public),
    "get_docs_style": Case(public),
}
