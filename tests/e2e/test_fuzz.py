"""Generated requests as a customer and as an administrator: no 5xx, and no response that the OpenAPI document lacks.

`make fuzz` does the same for a hundred thousand requests.
"""

import pytest

from qa.fuzz.run import ROOT, run
from qa.support.client import ADMIN, CUSTOMER

SEED = 20261122


@pytest.mark.parametrize("email", [CUSTOMER, ADMIN])
def test_every_response_is_documented(running, email):
    folder = ROOT / "var/test-fuzz" / email.partition("@")[0]
    result = run(running.url, email, "Demo-pass-2026!", seed=SEED, folder=folder, examples=3)
    assert not result.failures, result.failures
    assert result.responses.total() > 300
    assert max(result.statuses) < 500
    # Some requests succeeded, so the use cases were tested too.
    assert {name.rpartition(" ")[0] for name in result.responses if name.endswith((" 200", " 201"))} >= {
        "GET /products",
        "GET /orders",
        "POST /orders",
    }
