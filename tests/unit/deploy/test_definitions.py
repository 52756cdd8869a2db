"""The definitions that the broker loads at its start: complete, valid, and without weak passwords in production."""

import base64
import hashlib
import re

import pytest

from contracts.call_permissions import bus_services
from deploy import definitions
from deploy.broker_users import users
from deploy.definitions import DefinitionsError, build
from deploy.server_users import OPERATOR

EVERYBODY = (*bus_services(), OPERATOR)
STRONG = {f"{user.upper()}_BROKER_PASSWORD": f"{user}-9fK2" for user in EVERYBODY} | {"RABBITMQ_PASSWORD": "9fK2-x"}


@pytest.fixture
def made():
    return build({"ORDERS_BROKER_PASSWORD": "of-orders"}, production=False)


def test_every_service_has_a_user_and_only_one_user_has_all_permissions(made):
    assert {user["name"] for user in made["users"]} == {*EVERYBODY, "guest"}
    assert [one["user"] for one in made["permissions"] if ".*" in (one["configure"], one["write"])] == ["guest"]
    assert {user["name"]: user["tags"] for user in made["users"] if user["tags"]} == {"guest": "administrator"}


def test_the_definitions_contain_no_password(made):
    assert "of-orders" not in str(made)
    (orders,) = [user for user in made["users"] if user["name"] == "orders"]
    salted = base64.b64decode(orders["password_hash"])
    assert salted[4:] == hashlib.sha256(salted[:4] + b"of-orders").digest()


def test_permissions_are_anchored_and_topic_permissions_are_limited(made):
    topics = {exchange["name"] for exchange in made["exchanges"] if exchange["type"] == "topic"}
    for user in users("guest", [50, 100]):
        if user.tags:
            continue
        for expression in (user.configure, user.write, user.read, *sum(user.topics.values(), ())):
            assert re.compile(expression)
            assert expression == ".*" or re.fullmatch(r"\^.*\$", expression)
            assert expression[1:-1] == "" or expression == ".*" or expression[1] == "("
        writable = {name for name in topics if re.search(user.write, name)}
        assert {name for name in writable if not name.startswith("again.")} <= set(user.topics)


def test_bindings_refer_to_declared_exchanges_and_queues(made):
    exchanges, queues = ({one["name"] for one in made[kind]} for kind in ("exchanges", "queues"))
    for binding in made["bindings"]:
        assert binding["source"] in exchanges
        assert binding["destination"] in queues


def test_default_passwords_are_refused_in_production():
    assert build(STRONG, production=True)
    for variable in STRONG:
        user = "guest" if variable == "RABBITMQ_PASSWORD" else variable.partition("_")[0].lower()
        with pytest.raises(DefinitionsError, match=user):
            build({**STRONG, variable: ""}, production=True)
    with pytest.raises(DefinitionsError, match="orders"):
        build({**STRONG, "ORDERS_BROKER_PASSWORD": "orders"}, production=True)


@pytest.mark.parametrize(
    ("environ", "who"),
    [
        ({"RABBITMQ_USER": "suite", "RABBITMQ_PASSWORD": ""}, "suite"),
        ({"RABBITMQ_USER": "admin", "RABBITMQ_PASSWORD": ""}, "admin"),
        ({"RABBITMQ_PASSWORD": "password"}, "guest"),
        ({"OPERATOR_BROKER_PASSWORD": "guest"}, "operator"),
    ],
)
def test_common_passwords_are_refused_in_production(environ, who):
    with pytest.raises(DefinitionsError, match=f"give {who} passwords"):
        build(STRONG | environ, production=True)


def test_an_unknown_environment_gets_no_definitions(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("ENVIRONMENT", "prod")
    monkeypatch.setattr("sys.argv", ["prepare", str(tmp_path / "definitions.json")])
    assert definitions.main() == 1
    assert "'prod'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_a_file_nothing_is_written(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["prepare"])
    monkeypatch.delenv("BROKER_DEFINITIONS_FILE", raising=False)
    assert definitions.main() == 0
    assert capsys.readouterr().out == ""
