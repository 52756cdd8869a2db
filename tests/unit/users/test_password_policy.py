import pytest

from contracts.users import WeakPassword
from users.password_policy import check_password

EMAIL = "ayse.yilmaz@example.com"


@pytest.mark.parametrize(
    "password",
    [
        "Demo-pass-2026!",
        "correct horse battery",
        "ığüşöç-yağmur",
        "8362917463",
        "a b c d e f",
        "Short-1!",
        "x" * 64 + "y" * 64,
    ],
)
def test_accepts(password):
    check_password(password, EMAIL)


@pytest.mark.parametrize(
    ("password", "why"),
    [
        ("Short-1", "fewer than 8"),
        ("aaaaaaaaaaaa", "repeats"),
        ("PassWordpassword", "repeats"),
        ("1212121212", "repeats"),
        ("Ayse.Yilmaz@example.com", "e-mail"),
        ("ayse.yilmaz", "e-mail"),
        ("my ayse.yilmaz@example.com of 2026", "e-mail"),
        ("Ayse.Yilmaz2026", "e-mail"),
        ("Password123!", "well-known"),
        ("12345678", "well-known"),
        ("trustno1", "well-known"),
        ("TRUSTNO1", "well-known"),
        ("sunshine2026", "well-known"),
        ("!!!!dragon99", "well-known"),
        ("!!!Qwertyuiop1", "well-known"),
        ("Galatasaray1905", "well-known"),
        ("1q2w3e4r5t", "well-known"),
        ("1234567890", "well-known"),
        ("0987654321", "well-known"),
    ],
)
def test_refuses(password, why):
    with pytest.raises(WeakPassword, match=why):
        check_password(password, EMAIL)
