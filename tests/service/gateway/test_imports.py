"""Import and export over HTTP: streamed both ways."""

import csv
import io
import json
import socket

import pytest
from nameko import config

from catalog import queries
from contracts.ids import new_id
from extensions.storage import imports
from gateway import product_export, uploads
from tests.event_source import EventSource
from tests.service.gateway.responses import bearer, ok
from tests.support import eventually

HEADER = "sku,name,price,description,is_active\n"
CSV, LINES = {"Content-Type": "text/csv"}, {"Content-Type": "application/x-ndjson; charset=utf-8"}
OVER = {"DONE", "REJECTED", "FAILED"}


def counts(done):
    return tuple(done[name] for name in ("created", "updated", "unchanged", "failed"))


def upload(api, admin, content, mode="all_or_nothing", kind=CSV, **headers):
    """Import a file, and return the response to it, or that of the import when it is over."""
    response = api.post("/products/import", params={"mode": mode}, content=content, headers=admin | kind | headers)
    if response.status_code == 202:
        address = response.headers["Location"]
        eventually(lambda: ok(api.get(address, headers=admin))["status"] in OVER)
        response = api.get(address, headers=admin)
    return response


def test_a_round_trip_changes_nothing(api, admin):
    rows = [
        f'S-{number},"Çay, ""{number}""\u2002☕",{number}.50,"two\nlines",{str(number % 2 == 0).lower()}'
        for number in range(30)
    ]
    content = ("\ufeff" + HEADER + "\n".join(rows)).encode()
    done = ok(upload(api, admin, content))
    assert (done["status"], counts(done)) == ("DONE", (30, 0, 0, 0))
    for kind, accept in ((CSV, {}), (LINES, {"Accept": "application/x-ndjson"}), (CSV, {"Accept": "text/csv"})):
        exported = api.get("/products/export", headers=admin | accept)
        assert exported.headers["Content-Type"] == kind["Content-Type"].partition(";")[0]
        assert exported.headers["Transfer-Encoding"] == "chunked"
        assert counts(ok(upload(api, admin, exported.content, kind=kind))) == (0, 0, 30, 0)
    named = {row["sku"]: row["name"] for row in csv.DictReader(io.StringIO(exported.text, newline=""))}
    assert named["S-7"] == 'Çay, "7"\u2002☕'
    by_query = api.get("/products/export?format=json_lines", headers=admin)
    assert {json.loads(line)["sku"] for line in by_query.text.splitlines()} >= {"S-0", "S-29"}


def test_an_export_is_made_page_by_page(api, admin, monkeypatch):
    monkeypatch.setattr(queries, "EXPORT_PAGE", 3)
    ok(upload(api, admin, HEADER + "".join(f"P-{number},a,1.00,,\n" for number in range(8))))
    exported = api.get("/products/export", headers=admin).text.splitlines()
    assert [line.partition(",")[0] for line in exported] == ["sku", *(f"P-{number}" for number in range(8))]
    assert api.head("/products/export", headers=admin).content == b""
    assert not product_export._running
    monkeypatch.setattr(product_export, "MOST_EXPORTS", 0)
    assert api.get("/products/export", headers=admin).status_code == 503


def test_an_import_in_chunks_of_unknown_length(api, admin):
    text = (HEADER + "".join(f"U-{number},şişe {number},1.00,,\n" for number in range(2000))).encode()
    done = ok(upload(api, admin, (text[start : start + 997] for start in range(0, len(text), 997))))
    assert counts(done) == (2000, 0, 0, 0)


def test_bad_rows(api, admin):
    content = HEADER + "A,,1.00,,\nB,b,1.00,,\n"
    refused = ok(upload(api, admin, content))
    assert (refused["status"], counts(refused)) == ("REJECTED", (0, 0, 0, 1))
    assert refused["errors"] == [{"line": 2, "field": "name", "message": "must have at least 1 character"}]
    assert counts(ok(upload(api, admin, content, mode="skip_bad"))) == (1, 0, 0, 1)


def test_a_large_file_is_worked_on_after_the_response(api, admin, monkeypatch):
    monkeypatch.setattr(uploads, "RESULT_SECONDS", -1)
    response = api.post("/products/import", content=HEADER + "L-1,a,1.00,,\n", headers=admin | CSV)
    assert response.status_code == 202
    address = response.headers["Location"]
    assert address == f"/products/imports/{response.json()['id']}"
    assert (
        counts(eventually(lambda: (found := ok(api.get(address, headers=admin)))["status"] == "DONE" and found))[0] == 1
    )


def test_a_repeated_import_gets_the_first_result(api, admin):
    key = {"Idempotency-Key": "import-1"}
    first = ok(upload(api, admin, HEADER + "I-1,a,1.00,,\n", **key))
    again = upload(api, admin, HEADER + "I-1,a,1.00,,\n", **key)
    assert ok(again) == first
    assert again.headers["Idempotent-Replayed"] == "true"
    for content, mode in ((HEADER + "I-1,b,1.00,,\n", "all_or_nothing"), (HEADER + "I-1,a,1.00,,\n", "skip_bad")):
        refused = upload(api, admin, content, mode=mode, **key)
        assert (refused.status_code, refused.json()["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")


@pytest.mark.parametrize(
    ("content", "headers", "status"),
    [
        (b"sku,name,price\n\xff,a,1\n", CSV, 400),
        (b"sku\0", CSV, 400),
        (b"", {"Content-Type": "application/json"}, 415),
        (b"", {"Content-Type": "text/csv; charset=latin-1"}, 415),
        (b"", CSV | {"Content-Encoding": "gzip"}, 415),
        (b"x" * 2000, CSV, 413),
        (iter([b"x" * 900] * 3), CSV, 413),
    ],
    ids=["utf-8", "nul", "json", "charset", "gzip", "length", "chunked"],
)
def test_what_is_refused(api, admin, content, headers, status):
    with config.patch({"IMPORT_MAX_BYTES": 1500}):
        assert api.post("/products/import", content=content, headers=admin | headers).status_code == status
    assert ok(api.get("/products")) == {"items": [], "next_cursor": None}


def test_it_is_the_admins(api, session):
    customer = {"Authorization": f"Bearer {session['access_token']}"}
    assert api.post("/products/import", content=HEADER, headers=customer | CSV).status_code == 403
    assert api.post("/products/import", content=HEADER, headers=CSV).status_code == 401
    assert api.get("/products/export", headers=customer).status_code == 403


def test_a_client_that_disconnects_leaves_nothing(api, admin):
    host, port = api.base_url.host, api.base_url.port
    with socket.create_connection((host, port)) as client:
        client.sendall(
            f"POST /products/import HTTP/1.1\r\nHost: x\r\nAuthorization: {admin['Authorization']}\r\n"
            f"Content-Type: text/csv\r\nContent-Length: 100000\r\n\r\n{HEADER}D-1,a,1.00,,\n".encode()
        )
    assert ok(api.get("/health/live"))
    assert ok(api.get("/products")) == {"items": [], "next_cursor": None}


def test_an_export_to_a_client_of_http_1_0_ends_with_the_connection(api, admin):
    ok(upload(api, admin, HEADER + "H-1,a,1.00,,\n"))
    with socket.create_connection((api.base_url.host, api.base_url.port)) as client:
        client.sendall(f"GET /products/export HTTP/1.0\r\nAuthorization: {admin['Authorization']}\r\n\r\n".encode())
        response = b"".join(iter(lambda: client.recv(65536), b""))
    head, _, body = response.partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body.decode() == "sku,name,price,description,is_active\r\nH-1,a,1.00,,true\r\n"


class TestProgress:
    @pytest.fixture
    def listen(self, api):
        """A function that opens a stream: `listen(path, headers)`."""
        sources = []

        def connect(path, headers, last_event_id=None):
            source = EventSource(f"{api.base_url}{path}", headers, last_event_id)
            sources.append(source)
            return source.__enter__()

        yield connect
        for source in sources:
            source.close()

    @pytest.fixture
    def begun(self, api, admin, monkeypatch):
        """The path of an import that is worked on after the response."""
        monkeypatch.setattr(uploads, "RESULT_SECONDS", -1)
        monkeypatch.setattr(imports, "ROWS_PER_MERGE", 50)
        content = HEADER + "".join(f"E-{number},a,1.00,,\n" for number in range(400)) + "bad one,a,1.00,,\n"
        response = api.post("/products/import?mode=skip_bad", content=content, headers=admin | CSV)
        assert response.status_code == 202
        return response.headers["Location"]

    def test_is_followed_to_the_end(self, api, admin, begun, listen):
        source = listen(f"{begun}/events", admin)
        source.wait_for(lambda s: s.is_closed)
        assert source.events[-1] == ("end", None, {"reason": "complete"})
        last = source.data[-1]
        assert (last["status"], counts(last)) == ("DONE", (400, 0, 0, 1))
        done = ok(api.get(begun, headers=admin))
        assert last == {name: done[name] for name in last}
        assert "errors" not in last
        merged = [one["merged"] for one in source.data]
        assert merged == sorted(merged)

    def test_continues_after_the_last_event(self, api, admin, begun, listen):
        first = listen(f"{begun}/events", admin)
        first.wait_for(lambda s: s.is_closed)
        again = listen(f"{begun}/events", admin, last_event_id=first.ids[-1])
        again.wait_for(lambda s: s.is_closed)
        assert again.events == [("end", None, {"reason": "complete"})]
        late = listen(f"{begun}/events", admin)
        late.wait_for(lambda s: s.is_closed)
        assert late.events == first.events[-2:]

    def test_of_stock(self, api, admin, product, listen):
        content = f"product_sku,quantity\n{product['sku']},7\n"

        def done():
            response = api.post("/inventory/import", content=content, headers=admin | CSV)
            return response.status_code == 200 and response.json()["status"] == "DONE" and response.json()

        source = listen(f"/inventory/imports/{eventually(done)['id']}/events", admin)
        source.wait_for(lambda s: s.is_closed)
        assert [name for name, _, _ in source.events] == ["message", "end"]

    def test_is_for_administrators(self, api, admin, session, begun):
        path = f"{begun}/events"
        assert api.get(path, headers=bearer(session)).status_code == 403
        assert api.get(path).status_code == 401
        assert api.get(f"/products/imports/{new_id()}/events", headers=admin).json()["code"] == "IMPORT_NOT_FOUND"
        refused = api.get(path, headers={**admin, "Last-Event-ID": "7"})
        assert refused.json()["errors"][0]["field"] == "Last-Event-ID"
