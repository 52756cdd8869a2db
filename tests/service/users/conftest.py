import pytest

from users.service import UsersService

PASSWORD = "Demo-pass-2026!"


@pytest.fixture(scope="module", autouse=True)
def cheap_password_hashes():
    """Hash passwords as production does."""


@pytest.fixture
def users(shared_services, caller):
    shared_services(UsersService)
    return caller.users


@pytest.fixture
def ayse(users):
    """The result of her registration."""
    return users.register("ayse@example.com", PASSWORD)


@pytest.fixture
def admin(users):
    """An administrator, as an actor."""
    user = users.register("admin@example.com", PASSWORD)["user"]
    users.set_roles(user["id"], ["admin", "customer"])
    return {"user_id": user["id"], "roles": ["customer", "admin"]}
