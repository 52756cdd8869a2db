"""Helpers about responses: status and body, the header of a session, and undocumented headers."""

from extensions.http.openapi.document import document
from extensions.http.openapi.problems import HEADERS
from gateway.routes.docs import INFO
from gateway.service import GatewayService

DOCUMENT = document(GatewayService, INFO)
PASSWORD = "correct horse 7 battery"


def ok(response, status=200):
    """The body of a response, which must have this status."""
    assert response.status_code == status, f"{response.request.method} {response.request.url}: {response.text}"
    return response.json() if response.content else None


def bearer(session):
    """The authorisation header of a session."""
    return {"Authorization": f"Bearer {session['access_token']}"}


def undocumented(response, path):
    """Our headers of a response that the OpenAPI document does not list for the POST with this path."""
    told = DOCUMENT["paths"][path]["post"]["responses"][str(response.status_code)]
    if "$ref" in told:
        told = DOCUMENT["components"]["responses"][told["$ref"].rpartition("/")[2]]
    return {name for name in HEADERS if name in response.headers} - set(told["headers"])
