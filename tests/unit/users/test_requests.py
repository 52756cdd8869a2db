import pytest

from contracts.errors import ValidationFailed
from contracts.users import Credentials, UpdateUser


def test_an_address_is_normalised():
    assert Credentials.parse({"email": "  Ayse@Example.COM\n", "password": "x"}).email == "ayse@example.com"


@pytest.mark.parametrize(
    "email", ["a@b.co", "first.last+tag@mail.example.museum", "a" * 64 + "@b.xn--p1ai", "!#$%@b.co"]
)
def test_accepts_addresses(email):
    assert Credentials.parse({"email": email, "password": "x"}).email == email


def test_a_password_is_not_trimmed():
    assert Credentials.parse({"email": "a@b.co", "password": " Xy "}).password == " Xy "


@pytest.mark.parametrize(
    "email",
    [
        *("", "a@b", "@b.co", "a b@c.co", "a@b.co\x00", "ab.co", "\ud800@b.co", "a" * 250 + "@b.co", None),
        *("a@b.-co", "a@b.co-", "a@-b.co", ".a@b.co", "a.@b.co", "a..b@c.co", "a" * 65 + "@b.co"),
    ],
)
def test_refuses_addresses(email):
    with pytest.raises(ValidationFailed, match="email"):
        Credentials.parse({"email": email, "password": "x"})


@pytest.mark.parametrize("letter", ["\u212a", "\u0130", "\uff4b", "\u00b5", "\u017f", "\u2168"], ids=ascii)
def test_no_other_letter_becomes_one_of_an_address(letter):
    """The lower case of KELVIN SIGN is k, and that of a capital I with a dot begins with i."""
    for email in (f"{letter}@b.co", f"a@{letter}.co", f"a@b.co{letter}"):
        with pytest.raises(ValidationFailed, match="must be an e-mail address"):
            Credentials.parse({"email": email, "password": "x"})


@pytest.mark.parametrize("roles", [[], "admin", ["root"], None, ["admin"] * 3])
def test_refuses_roles(roles):
    with pytest.raises(ValidationFailed, match="roles"):
        UpdateUser.parse({"roles": roles})


def test_a_password_is_unicode_normalised():
    """A combining accent, a full-width digit, a ligature: keyboards differ in how they encode a character."""
    spellings = ["\u00d6grenci-2026 \ufb01ne", "O\u0308grenci-\uff12026 fine"]
    assert len({Credentials.parse({"email": "a@b.co", "password": one}).password for one in spellings}) == 1


@pytest.mark.parametrize("password", ["", "x" * 129, "a\x00b", "a\ud800b", "a\u202eb", "\x7f", None, 5, ["x"]])
def test_refuses_passwords(password):
    with pytest.raises(ValidationFailed, match="password"):
        Credentials.parse({"email": "a@b.co", "password": password})
