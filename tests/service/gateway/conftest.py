from datetime import UTC, datetime, timedelta

import httpx
import pytest
from nameko import config

from extensions.http.entrypoint import HttpServer
from extensions.ids import new_id
from gateway.service import GatewayService
from users.tokens import issue, load_signing_key


@pytest.fixture
def gateway(run_service):
    """Start the gateway on a free port; returns an HTTP client. `gateway(services=fake)` replaces the services."""
    clients = []

    def start(**replacements):
        with config.patch({"WEB_SERVER_ADDRESS": "127.0.0.1:0"}):
            container = run_service(GatewayService, **replacements)
        port = container.shared_extensions[HttpServer].port
        clients.append(httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=10))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


@pytest.fixture
def login(servers):
    """Make the headers of a user with these roles: `login("customer", "admin")`."""
    key = load_signing_key(config["JWT_PRIVATE_KEY_FILE"])

    def headers(*roles, user_id=None, age=0):
        issued_at = datetime.now(UTC) - timedelta(seconds=age)
        token = issue(key, user_id=user_id or new_id(), roles=roles, issued_at=issued_at, token_id=new_id())
        return {"Authorization": f"Bearer {token}"}

    return headers
