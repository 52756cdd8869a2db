"""The users that Redis loads at its start: complete, and without weak passwords in production."""

import hashlib

import pytest

from contracts.services import PROCESSES
from deploy import redis_users
from deploy.config_file import ROOT, load
from deploy.redis_users import ADMINISTRATOR, LIMITS_OF_REQUESTS, RULES, WeakPassword, build

STRONG = {f"{service.upper()}_REDIS_PASSWORD": f"{service}-9fK2" for service in RULES} | {"REDIS_PASSWORD": "9fK2-x"}


def users(text):
    """The words after each user's name."""
    return {line.split()[1]: line.split()[2:] for line in text.splitlines()}


def test_every_service_has_a_user_and_only_one_user_has_all_permissions():
    made = users(build({}, production=False))
    assert set(made) == {*PROCESSES, ADMINISTRATOR}
    assert [name for name, words in made.items() if "+@all" in words or "~*" in words] == [ADMINISTRATOR]
    assert all("-@all" in words for name, words in made.items() if name != ADMINISTRATOR)


def test_the_users_file_contains_no_password():
    text = build({"ORDERS_REDIS_PASSWORD": "of-orders", "REDIS_PASSWORD": "of-all"}, production=False)
    assert "of-" not in text
    assert f"#{hashlib.sha256(b'of-orders').hexdigest()}" in users(text)["orders"]
    assert f"#{hashlib.sha256(b'of-all').hexdigest()}" in users(text)[ADMINISTRATOR]


def test_default_passwords_are_refused_in_production():
    assert "nopass" not in build(STRONG, production=True)
    for variable in STRONG:
        user = ADMINISTRATOR if variable == "REDIS_PASSWORD" else variable.partition("_")[0].lower()
        for known in ("", "redis", user):
            with pytest.raises(WeakPassword, match=f"give {user} passwords"):
                build({**STRONG, variable: known}, production=True)


def test_the_gateway_may_use_the_rate_limits_of_config():
    assert set(load(ROOT / "config.yml")["RATE_LIMITS"]["production"]) == set(LIMITS_OF_REQUESTS)


def test_weak_passwords_are_not_written_in_production(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["redis_users", str(tmp_path / "users.acl")])
    for word, complaint in (("production", "default"), ("prod", "'prod'")):
        monkeypatch.setattr(redis_users, "load", lambda word=word: {"ENVIRONMENT": word})
        assert redis_users.main() == 1
        assert complaint in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
