import json

import pytest

from qa.support.query_plans import Executed, read, without_values


def scan(kind, table="orders", rows=1, **more):
    return {"Node Type": kind, "Relation Name": table, "Actual Rows": rows, "Actual Loops": 1} | more


def over(kind, *parts):
    return {"Node Type": kind, "Plans": list(parts)}


def executed(plan):
    return Executed("orders", "SELECT", plan)


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT a FROM t WHERE id IN ('x'::uuid, 'y'::uuid) LIMIT 21",
        "SELECT a\n FROM t  WHERE id IN ('it''s'::uuid) LIMIT 5",
        "SELECT a FROM t WHERE id IN ($1::uuid) LIMIT 2.5",
    ],
)
def test_a_statement_is_the_same_whatever_its_values(statement):
    assert without_values(statement) == "SELECT a FROM t WHERE id IN (?) LIMIT ?"


@pytest.mark.parametrize(
    ("plan", "tables"),
    [
        (scan("Seq Scan"), ["orders"]),
        (over("Limit", scan("Seq Scan")), ["orders"]),  # a filter may drop all of it
        (scan("Seq Scan", "outbox"), []),
        (scan("Seq Scan", "pg_type"), []),
        (scan("Seq Scan", "a_table_of_a_new_service"), ["a_table_of_a_new_service"]),
        (scan("Index Scan"), ["orders"]),
        (scan("Index Scan", **{"Index Cond": "(id = ?)"}), []),
        (over("Limit", scan("Index Scan")), []),
        (over("Limit", scan("Index Scan", **{"Rows Removed by Filter": 100})), []),
        (over("Limit", scan("Index Scan", **{"Rows Removed by Filter": 101})), ["orders"]),
        (over("Limit", over("LockRows", scan("Index Scan"))), []),
        (over("Limit", over("Sort", scan("Index Scan"))), ["orders"]),
        (over("Aggregate", scan("Index Only Scan", **{"Index Name": "ix_orders_undecided"})), []),
        (scan("Tid Scan"), []),
        (over("Hash Join", scan("Bitmap Heap Scan"), over("Hash", scan("Seq Scan", "inbox"))), ["inbox"]),
    ],
)
def test_what_is_read_whole(plan, tables):
    assert executed(plan).read_whole == tables


def test_rows_that_were_dropped_were_examined_too_each_time():
    inner = scan("Index Scan", rows=2, **{"Rows Removed by Filter": 3}) | {"Actual Loops": 4}
    assert executed(over("Nested Loop", scan("Seq Scan", rows=4), inner)).examined == 4 + 20


def test_plans_are_found_in_a_log_among_other_lines(tmp_path):
    log = tmp_path / "postgres.log"
    told = json.dumps({"Query Text": "SELECT 1", "Plan": scan("Result")}, indent=2).replace("\n", "\n\t")
    begin = "2026-01-31 08:30:00.000 UTC [7] orders@orders LOG:  duration: 0.012 ms  plan:"
    ours = begin.replace("orders@orders", "postgres@orders")
    log.write_text("before\n")
    offset = log.stat().st_size
    with log.open("a") as file:
        for line in (begin, begin, ours, begin):
            file.write(f"{line}\n\t{told}\nsomething else:\n\tof two lines\n")
    assert [one.database for one in read(log, offset)] == ["orders"] * 3
    assert {one.statement for one in read(log, offset)} == {"SELECT ?"}
