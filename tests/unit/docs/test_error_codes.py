"""docs/api.md has each error code of the API, with its status."""

import re

from contracts.errors import ServiceError
from gateway.service import GatewayService
from tests.unit.docs.known_names import ROOT

PRODUCT = {"contracts", "extensions", "gateway"}
ROW = re.compile(r"^\| ([0-9]{3}) \| `([A-Z_]+)` \| (\S.*) \|$", re.MULTILINE)


def test_every_code_has_its_row():
    assert GatewayService.name  # all contracts, and all errors of the gateway, are imported
    text = (ROOT / "docs/api.md").read_text()
    section = text.partition("\n## All error codes\n")[2].partition("\n## ")[0]
    rows = [(int(status), code) for status, code, _ in ROW.findall(section)]
    ours = [kind for kind in ServiceError._by_name.values() if kind.__module__.partition(".")[0] in PRODUCT]
    assert rows == sorted({(kind.status, kind.code) for kind in ours})
    assert len(rows) == section.count("\n| ") - 1
