"""Statements of hot paths match the columns of their tables; each condition of the saga is defined once."""

import re
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock, patch

import pytest

from orders.models import ORDER_STATE, PLACE_ORDERS, UNDECIDED, UNSETTLED, LockedOrder, Order, OrderItem, TimelineEvent

ROOT = Path(__file__).resolve().parents[3]
INSERT = re.compile(r"INSERT INTO (\w+) \(([^)]*)\)")


def required(table):
    """The columns without a default, which an INSERT must name."""
    return {c.name for c in table.columns if not c.nullable and c.server_default is None and c.identity is None}


@pytest.mark.parametrize("model", [Order, OrderItem, TimelineEvent])
def test_the_insert_statement_names_the_required_columns_of_each_table(model):
    table = model.__table__
    (columns,) = [columns for name, columns in INSERT.findall(PLACE_ORDERS.text) if name == table.name]
    named = {column.strip() for column in columns.split(",")}
    assert required(table) <= named <= {column.name for column in table.columns}


def test_a_locked_order_has_the_columns_of_the_statement_in_the_same_sequence():
    names = [field.name for field in fields(LockedOrder)]
    assert names == [column.name for column in ORDER_STATE.selected_columns]
    assert set(names) <= {column.name for column in Order.__table__.columns}


@pytest.mark.parametrize("field", fields(LockedOrder), ids=lambda field: field.name)
def test_a_locked_order_has_the_column_types_of_the_model(field):
    column = Order.__table__.columns[field.name]
    assert str(column.nullable) == str("None" in str(field.type))
    assert column.type.python_type.__name__ in str(field.type)


def test_the_conditions_match_the_partial_indexes_of_the_migration():
    undecided = (ROOT / "orders/migrations/0001_orders.py").read_text()
    assert UNDECIDED.text in "".join(re.findall(r'"([^"]*)"', undecided))
    migration = import_module("orders.migrations.0008_addresses_and_shipments")
    with patch.object(migration, "op", SimpleNamespace(drop_index=Mock(), create_index=Mock())) as op:
        migration._index_unsettled(migration.UNRETURNED, migration.SETTLED)
        unsettled = [call.kwargs["postgresql_where"].text for call in op.create_index.call_args_list]
    assert unsettled == [UNSETTLED.text.removeprefix("(").removesuffix(")")]


def test_no_other_sql_of_orders_repeats_the_conditions():
    found = [
        path.name
        for path in (ROOT / "orders").glob("*.py")
        if "status == OrderStatus.CREATED" in path.read_text() or "WHERE status = 'CREATED'" in path.read_text()
    ]
    assert found == []
