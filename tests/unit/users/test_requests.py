import pytest

from contracts.errors import ValidationFailed
from contracts.users import Credentials, UpdateUser


def test_an_address_is_normalised():
    assert Credentials.parse({"email": "  Ayse@Example.COM\n", "password": "x"}).email == "ayse@example.com"


def test_a_password_is_not():
    assert Credentials.parse({"email": "a@b.co", "password": " Xy "}).password == " Xy "


@pytest.mark.parametrize(
    "email", ["", "a@b", "@b.co", "a b@c.co", "a@b.co\x00", "a@@b.co", "\ud800@b.co", "a" * 250 + "@b.co", None]
)
def test_refuses_addresses(email):
    with pytest.raises(ValidationFailed, match="email"):
        Credentials.parse({"email": email, "password": "x"})


@pytest.mark.parametrize("roles", [[], "admin", ["root"], None, ["admin"] * 3])
def test_refuses_roles(roles):
    with pytest.raises(ValidationFailed, match="roles"):
        UpdateUser.parse({"roles": roles})
