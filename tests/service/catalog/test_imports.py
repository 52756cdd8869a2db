"""Imports of products, as the gateway makes them: begun, sent in chunks, finished, and worked on."""

import hashlib
import json
from types import SimpleNamespace

import pytest
import sqlalchemy
from sqlalchemy.orm import Session

from catalog import service
from catalog.models import Base
from catalog.service import CatalogService
from contracts.errors import IdempotencyKeyInUse, PermissionDenied, ValidationFailed
from contracts.ids import new_id
from contracts.imports import ImportComplete, ImportNotFound
from extensions.storage import imports
from tests.support import database, eventually

CUSTOMER = {"user_id": str(new_id()), "roles": ["customer"]}
HEADER = "sku,name,price,description,is_active\n"
OVER = {"DONE", "REJECTED", "FAILED"}


@pytest.fixture
def catalog(shared_services, caller):
    shared_services(CatalogService)
    return caller.catalog


def send(catalog, text, mode="all_or_nothing", file_format="csv", size=1000, **options):
    """Send a file in chunks. Returns the id of the import."""
    begun = catalog.begin_import(mode=mode, format=file_format, **options)
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    for number, piece in enumerate(pieces):
        catalog.add_import_chunk(begun["id"], number=number, text=piece)
    catalog.finish_import(begun["id"], chunks=len(pieces), sha256=hashlib.sha256(text.encode()).hexdigest())
    return begun["id"]


def result(catalog, import_id):
    return eventually(lambda: (found := catalog.get_import(import_id))["status"] in OVER and found)


def run(catalog, text, **options):
    return result(catalog, send(catalog, text, **options))


def counts(done):
    return tuple(done[name] for name in ("created", "updated", "unchanged", "failed"))


def products(catalog):
    return {one["sku"]: one for one in catalog.list_products(only_active=False, limit=100)["items"]}


def rows_left(table):
    with database("catalog").connect() as connection:
        return connection.scalar(sqlalchemy.text(f"SELECT count(*) FROM {table}"))


def test_a_csv_file_creates_changes_and_leaves(catalog):
    catalog.create_product("A-1", "Old", "1.00", "stays", True)
    catalog.create_product("A-2", "Same", "2.00")
    text = 'name,sku,price\nNew name,a-1,1.50\r\nSame,A-2,2.00\n"Çay, ""demli""\n",A-3,3\n'.replace('\n",A', '",A')
    done = run(catalog, text, size=7)
    assert (done["status"], counts(done), done["errors"]) == ("DONE", (1, 1, 1, 0), [])
    assert (done["staged"], done["merged"]) == (3, 3)
    found = products(catalog)
    assert (found["a-1"]["name"], found["a-1"]["description"], found["a-1"]["version"]) == ("New name", "stays", 2)
    assert (found["A-3"]["name"], found["A-3"]["price"], found["A-3"]["is_active"]) == ('Çay, "demli"', "3.00", True)
    assert found["A-2"]["version"] == 1
    assert catalog.get_product(found["a-1"]["id"])["name"] == "New name"  # not the cached one
    assert rows_left("import_rows") == rows_left("import_chunks") == 0


def test_new_and_changed_products_are_published_as_they_are(catalog, bus):
    changed = catalog.create_product("E-1", "Old", "1.00", "stays")["id"]
    catalog.create_product("E-2", "Same", "2.00")
    run(catalog, "sku,name,price\nE-1,New,1.5\nE-2,Same,2.00\nE-3,Çay,3\n")
    found = products(catalog)
    for event_type, sku in (("product.updated", "E-1"), ("product.created", "E-3")):
        (event,) = bus.wait_for(event_type, found[sku]["id"])
        assert event.model_dump(mode="json") == found[sku]
    assert [str(event.id) for event in bus.events("product.updated")] == [changed]


def test_json_lines(catalog):
    rows = [
        {"sku": "J-1", "name": "ş", "price": "1.00"},
        {"sku": "J-2", "name": "b", "price": "2.00", "is_active": False},
    ]
    text = "\n\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    done = run(catalog, text, file_format="json_lines", size=5)
    assert counts(done) == (2, 0, 0, 0)
    assert not products(catalog)["J-2"]["is_active"]


BAD = HEADER + "OK-1,Fine,1.00,,\nBAD 1,,1.999,,maybe\nOK-2,Fine,2.00,,true\nok-1,Again,1.00,,\nOK-3,Few,1.00\n"


def test_a_bad_row_changes_nothing(catalog):
    done = run(catalog, BAD)
    assert (done["status"], counts(done)) == ("REJECTED", (0, 0, 0, 3))
    fields = {(error["line"], error["field"]) for error in done["errors"]}
    assert fields == {(3, "sku"), (3, "name"), (3, "price"), (3, "is_active"), (5, "sku"), (6, "")}
    assert products(catalog) == {}
    eventually(lambda: rows_left("import_rows") == 0)


def test_bad_rows_are_skipped(catalog):
    done = run(catalog, BAD, mode="skip_bad")
    assert (done["status"], counts(done)) == ("DONE", (2, 0, 0, 3))
    assert set(products(catalog)) == {"OK-1", "OK-2"}
    again = run(catalog, BAD, mode="skip_bad")
    assert counts(again) == (0, 0, 2, 3)


@pytest.mark.parametrize(
    ("text", "file_format", "line", "message"),
    [
        ("", "csv", 1, "must name the columns"),
        ("sku,name\nA,b\n", "csv", 1, "price is required"),
        ("sku,name,price,id\n", "csv", 1, "'id' is not a known column"),
        ("sku,name,price,sku\n", "csv", 1, "twice"),
        (HEADER + 'A,"open', "csv", 2, "unexpected end"),
        (HEADER + "A," + "x" * 70_000, "csv", 2, "more than"),
        ("[1]\n", "json_lines", 1, "must be an object"),
        ('{"sku": NaN}\n', "json_lines", 1, "not valid JSON"),
        ("[" * 5000 + "\n", "json_lines", 1, "not valid JSON"),
        ('\n{"sku": "A", "name": "b", "price": 1}\n', "json_lines", 2, "decimal string"),
        ('{"sku": "A", "name": "b", "price": "1", "x": 1}\n', "json_lines", 1, "not a known field"),
    ],
)
def test_what_cannot_be_read_is_an_error_of_its_line(catalog, text, file_format, line, message):
    done = run(catalog, text, file_format=file_format, size=100_000)
    assert done["status"] == "REJECTED"
    assert [error["line"] for error in done["errors"]] == [line]
    assert message in done["errors"][0]["message"]


def test_errors_are_bounded_and_counted(catalog):
    done = run(catalog, HEADER + "?,a,1.00,,\n" * 1500, size=100_000)
    assert (done["failed"], len(done["errors"])) == (1500, 1000)


def test_an_import_is_the_admins(catalog):
    for call in (
        lambda: catalog.begin_import(mode="skip_bad", format="csv", actor=CUSTOMER),
        lambda: catalog.get_import(str(new_id()), actor=CUSTOMER),
        lambda: catalog.export_products(actor=CUSTOMER),
    ):
        with pytest.raises(PermissionDenied):
            call()
    with pytest.raises(ImportNotFound):
        catalog.get_import(str(new_id()))


def test_a_file_must_arrive_completely_and_once(catalog):
    begun = catalog.begin_import(mode="skip_bad", format="csv")["id"]
    with pytest.raises(ValidationFailed):
        catalog.add_import_chunk(begun, number=0, text="a\0b")
    catalog.add_import_chunk(begun, number=1, text="x")
    with pytest.raises(ValidationFailed):
        catalog.finish_import(begun, chunks=2, sha256="0" * 64)
    done = send(catalog, HEADER)
    with pytest.raises(ImportComplete):
        catalog.add_import_chunk(done, number=9, text="x")
    assert result(catalog, done)["status"] == "DONE"


def test_a_key_has_one_import(catalog):
    first = send(catalog, HEADER + "K-1,a,1.00,,\n", idempotency_key="key-1")
    result(catalog, first)
    again = catalog.begin_import(mode="all_or_nothing", format="csv", idempotency_key="key-1")
    assert (again["id"], len(again["sha256"])) == (first, 64)
    other = catalog.begin_import(mode="skip_bad", format="csv", idempotency_key="key-2")["id"]
    with pytest.raises(IdempotencyKeyInUse):
        catalog.begin_import(mode="skip_bad", format="csv", idempotency_key="key-2")
    with database("catalog").begin() as connection:  # a minute later
        connection.execute(sqlalchemy.text("UPDATE imports SET updated_at = now() - interval '61 s'"))
    assert catalog.begin_import(mode="skip_bad", format="csv", idempotency_key="key-2")["id"] != other


@pytest.mark.parametrize("status", ["VALIDATING", "MERGING"])
def test_an_import_is_continued_after_a_crash(catalog, status):
    """Its process has ended, after some rows were staged, or merged: the lease ends, and the rest is done."""
    text = HEADER + "".join(f"C-{number},Name,1.00,,\n" for number in range(600))
    import_id = str(new_id())
    with database("catalog").begin() as connection:
        connection.execute(
            sqlalchemy.text(
                "INSERT INTO imports (id, actor, mode, format, status, headers, attempts, staged, merged, created,"
                " lease_until) VALUES (:id, '', 'all_or_nothing', 'csv', :status, '{}', 1, 600, 1, 1,"
                " now() - interval '1 s')"
            ),
            {"id": import_id, "status": status},
        )
        rows = [
            (number + 2, f"c-{number}", {"sku": f"C-{number}", "name": "Name", "price": "1.00"})
            for number in range(600)
        ]
        for line, key, data in rows[1 if status == "MERGING" else 590 :]:
            connection.execute(
                sqlalchemy.text("INSERT INTO import_rows VALUES (:id, :line, :key, :data)"),
                {"id": import_id, "line": line, "key": key, "data": json.dumps(data)},
            )
        if status == "VALIDATING":
            connection.execute(sqlalchemy.text("UPDATE imports SET merged = 0, created = 0"))
            connection.execute(
                sqlalchemy.text("INSERT INTO import_chunks VALUES (:id, 0, :text)"), {"id": import_id, "text": text}
            )
        connection.execute(sqlalchemy.text("UPDATE timers SET due_at = now() WHERE name = 'run_imports'"))
    if status == "MERGING":
        catalog.create_product("C-0", "Name", "1.00")
    done = result(catalog, import_id)
    assert (done["status"], counts(done)) == ("DONE", (600, 0, 0, 0))
    with database("catalog").connect() as connection:
        assert connection.scalar(sqlalchemy.text("SELECT count(*) FROM products")) == 600


def test_a_file_that_ends_its_process_is_given_up(catalog, monkeypatch):
    monkeypatch.setattr(imports, "MOST_ATTEMPTS", 1)
    monkeypatch.setattr(CatalogService, "row_model", "no.module:X")
    done = run(catalog, HEADER)
    assert (done["status"], len(done["errors"])) == ("FAILED", 1)


def test_a_merge_that_always_fails_is_given_up_and_delays_no_other(catalog, monkeypatch):
    monkeypatch.setattr(imports, "MOST_ATTEMPTS", 2)
    monkeypatch.setattr(imports, "ROWS_PER_MERGE", 1)
    original = service.merge_products

    def merge(session, rows, *others):
        if rows[0]["sku"] == "POISON":
            raise RuntimeError("it fails")
        return original(session, rows, *others)

    monkeypatch.setattr(service, "merge_products", merge)
    poisoned = send(catalog, HEADER + "P-1,a,1.00,,\nPOISON,a,1.00,,\n")
    assert run(catalog, HEADER + "P-2,a,1.00,,\n")["status"] == "DONE"
    done = result(catalog, poisoned)
    assert (done["status"], counts(done)) == ("FAILED", (1, 0, 0, 0))
    assert "1 rows are merged" in done["errors"][0]["message"]


def test_old_imports_are_deleted(catalog):
    finished, unfinished = send(catalog, HEADER), catalog.begin_import(mode="skip_bad", format="csv")["id"]
    result(catalog, finished)
    assert swept(finished) == swept(unfinished) == 1
    age(unfinished, "updated_at", "61 min")
    age(finished, "created_at", "47 h")
    assert (swept(finished), swept(unfinished)) == (1, 0)
    age(finished, "created_at", "2 h")
    assert swept(finished) == 0


def age(import_id, column, interval):
    with database("catalog").begin() as connection:
        statement = f"UPDATE imports SET {column} = {column} - CAST(:interval AS interval) WHERE id = :id"
        connection.execute(sqlalchemy.text(statement), {"interval": interval, "id": import_id})


def swept(import_id):
    """Sweep, and return how many imports with this id are left."""
    with Session(database("catalog")) as session, session.begin():
        work = SimpleNamespace(session=session, table=Base.metadata.tables.__getitem__)
        imports.Imports(work, "", []).sweep()
        count = sqlalchemy.text("SELECT count(*) FROM imports WHERE id = :id")
        return session.scalar(count, {"id": import_id})
