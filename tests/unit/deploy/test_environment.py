import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.services import SERVICES
from deploy.local import environment
from deploy.local.process import StartError
from deploy.local.servers import OURS, data_folder, given_addresses
from extensions.runtime.addresses import database_variable

NAMES = st.from_regex(r"[A-Z][A-Z0-9_]{0,20}", fullmatch=True)
VALUES = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\n", exclude_categories=("Cs", "Cc", "Zl", "Zp")))
DATABASES = {database_variable(s): f"postgresql+psycopg2://h/{s}" for s in SERVICES}


@given(st.dictionaries(NAMES, VALUES))
def test_written_variables_are_read_back(variables):
    assert environment.parse(environment.render(variables)) == variables


def test_a_shell_that_sources_the_file_sees_the_same_values(tmp_path):
    awkward = {"AMQP_URI": 'pyamqp://g:it\'s $HOME `x` "y"@h//', "GATEWAY_URL": "http://127.0.0.1:8000"}
    environment.write(tmp_path / "env", awkward)
    script = f'. {tmp_path}/env && printf "%s\\n" "$AMQP_URI" "$GATEWAY_URL" "$ORDER_SUITE_ENV" > {tmp_path}/out'
    subprocess.run(["sh", "-c", script], check=True)
    assert (tmp_path / "out").read_text().splitlines() == [*awkward.values(), str(tmp_path / "env")]


def test_only_the_owner_can_read_the_file(tmp_path):
    environment.write(tmp_path / "env", {"A": "1"})
    assert (tmp_path / "env").stat().st_mode & 0o777 == 0o600


def test_the_python_settings_of_the_user_stay_unchanged(tmp_path):
    environment.write(tmp_path / "env", {"AMQP_URI": "pyamqp://h//"})
    assert environment.read(tmp_path / "env") == {"AMQP_URI": "pyamqp://h//", OURS: str(tmp_path / "env")}


def test_no_file_means_no_variables(tmp_path):
    assert environment.read(tmp_path / "env") == {}


def test_given_addresses_are_used():
    given = {"AMQP_URI": "pyamqp://elsewhere//", **DATABASES, "PATH": "/bin", "REDIS_URL": ""}
    assert given_addresses(given) == {"AMQP_URI": "pyamqp://elsewhere//", **DATABASES}


def test_users_of_redis_are_used_only_with_a_given_redis():
    own = {"ORDERS_REDIS_URL": "redis://orders:x@elsewhere"}
    assert given_addresses(own) == {}
    assert given_addresses(own | {"REDIS_URL": "redis://elsewhere"}) == own | {"REDIS_URL": "redis://elsewhere"}


def test_owners_of_given_databases_can_be_given():
    given = {**DATABASES, "ORDERS_OWNER_DATABASE_URL": "postgresql+psycopg2://h/orders"}
    assert given_addresses(given) == given


def test_addresses_written_by_an_earlier_run_do_not_count_as_given():
    assert given_addresses({"AMQP_URI": "pyamqp://127.0.0.1:21252//", OURS: "var/env"}) == {}


def test_an_incomplete_list_of_databases_is_an_error_that_names_the_missing_ones():
    some = {name: url for name, url in DATABASES.items() if name != "ORDERS_DATABASE_URL"}
    with pytest.raises(StartError, match="not ORDERS_DATABASE_URL"):
        given_addresses(some)


def test_the_data_of_root_is_where_the_user_postgres_can_read_it(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    folder = data_folder(tmp_path)
    assert str(folder).startswith("/var/tmp/order-suite-0-")
    assert folder == data_folder(tmp_path)
    assert folder != data_folder(tmp_path / "another")


def test_the_data_of_other_users_is_in_the_clone_unless_its_path_is_unusual(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert data_folder(tmp_path) == tmp_path / "data"
    assert str(data_folder(tmp_path / "my clone")).startswith("/var/tmp/order-suite-1000-")
