from decimal import Decimal

import pytest
from nameko.exceptions import RemoteError

from deploy import seed
from deploy.seed import ADMIN, CUSTOMER, PRODUCTS, SeedError

PASSWORD = "Demo-pass-2026!"


class FakeSuite:
    """The RPC methods that the seed calls, with the errors of the services. Calls fail after the first `dies_after`."""

    def __init__(self):
        self.accounts, self.products, self.stock, self.calls, self.dies_after = {}, {}, {}, [], None
        self.users = self.catalog = self.inventory = self

    def _called(self, name):
        self.calls.append(name)
        if self.dies_after is not None and len(self.calls) > self.dies_after:
            raise ConnectionResetError

    def register(self, email, password):
        self._called("register")
        if email in self.accounts:
            raise RemoteError("UserAlreadyExists", "there is one")
        self.accounts[email] = {"password": password, "user": {"id": email, "roles": ["customer"]}}
        return {"user": self.accounts[email]["user"]}

    def login(self, email, password):
        self._called("login")
        if self.accounts[email]["password"] != password:
            raise RemoteError("InvalidCredentials", "no")
        return {"user": self.accounts[email]["user"]}

    def set_roles(self, user_id, roles):
        self._called("set_roles")
        self.accounts[user_id]["user"]["roles"] = roles

    def list_products(self, sku, only_active):
        self._called("list_products")
        return {"items": [p for p in self.products.values() if p["sku"] == sku], "next_cursor": None}

    def create_product(self, sku, name, price, description):
        self._called("create_product")
        self.products[sku] = {"id": f"id of {sku}", "sku": sku, "name": name, "price": price}
        return self.products[sku]

    def get_stock(self, product_id):
        self._called("get_stock")
        if product_id not in self.stock:
            raise RemoteError("StockNotFound", "none")
        return self.stock[product_id]

    def set_stock(self, product_id, product_sku, quantity):
        self._called("set_stock")
        self.stock[product_id] = quantity


def plant(suite, password=PASSWORD):
    said = []
    seed.seed(suite, password, said.append)
    return said


def test_the_products_are_those_of_the_contract():
    assert len(PRODUCTS) >= 10
    assert len({p.sku for p in PRODUCTS}) == len({p.price for p in PRODUCTS}) == len(PRODUCTS)
    assert sum(Decimal(p.price) > 10_000 for p in PRODUCTS) == 1
    assert sorted(p.stock for p in PRODUCTS)[:2] == [0, 1]
    assert all(p.stock >= 1000 for p in PRODUCTS if p.stock not in (0, 1))


def test_the_seed_creates_an_admin_a_customer_and_products_with_stock():
    suite = FakeSuite()
    said = plant(suite)
    assert suite.accounts[ADMIN]["user"]["roles"] == ["customer", "admin"]
    assert suite.accounts[CUSTOMER]["user"]["roles"] == ["customer"]
    assert suite.stock == {f"id of {p.sku}": p.stock for p in PRODUCTS}
    assert said == [f"{len(PRODUCTS)} of {len(PRODUCTS)} products added"]


def test_a_second_run_changes_nothing():
    suite = FakeSuite()
    plant(suite)
    suite.stock["id of TEA-RIZE-1000"] = 7  # sold meanwhile
    suite.calls.clear()
    assert plant(suite) == ["the demo shop exists already"]
    assert not {"create_product", "set_stock", "set_roles"} & set(suite.calls)
    assert suite.stock["id of TEA-RIZE-1000"] == 7


def test_the_next_run_completes_one_interrupted_at_any_call():
    whole = FakeSuite()
    plant(whole)
    for calls in range(len(whole.calls)):
        suite = FakeSuite()
        suite.dies_after = calls
        with pytest.raises(ConnectionResetError):
            plant(suite)
        suite.dies_after = None
        plant(suite)
        assert (suite.accounts, suite.products, suite.stock) == (whole.accounts, whole.products, whole.stock)


def test_an_account_with_a_changed_password_is_not_modified():
    suite = FakeSuite()
    plant(suite)
    suite.accounts[ADMIN] = {"password": "their own", "user": {"id": ADMIN, "roles": ["customer"]}}
    said = plant(suite)
    assert suite.accounts[ADMIN]["user"]["roles"] == ["customer"]
    assert f"{ADMIN} has another password" in said[0]


def test_any_other_error_is_raised():
    suite = FakeSuite()
    suite.register = lambda *_: (_ for _ in ()).throw(RemoteError("WeakPassword", "too weak"))
    with pytest.raises(RemoteError, match="too weak"):
        plant(suite)


def test_production_is_refused(monkeypatch):
    monkeypatch.setattr(seed, "load", lambda: {"ENVIRONMENT": "production"})
    with pytest.raises(SeedError, match="production"):
        seed.run()
