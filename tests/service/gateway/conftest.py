from datetime import UTC, datetime, timedelta

import httpx
import pytest
from nameko import config

from contracts.ids import new_id
from contracts.services import SERVICES
from extensions.http.routing.dispatcher import HttpServer
from gateway.service import GatewayService
from tests.service.gateway.responses import PASSWORD, bearer, ok
from tests.support import TEST_TIMEOUT_SECONDS, eventually, service_class
from users.token_issuer import issue, load_signing_keys

SERVICE_CLASSES = tuple(map(service_class, SERVICES))


@pytest.fixture
def gateway(run_service):
    """Start the gateway on a free port; returns an HTTP client. `gateway(services=fake)` replaces the services.

    The containers are in `gateway.containers`.
    """
    clients = []

    def start(**replacements):
        with config.patch({"WEB_SERVER_ADDRESS": "127.0.0.1:0"}):
            container = run_service(GatewayService, **replacements)
        start.containers.append(container)
        clients.append(
            httpx.Client(base_url=f"http://127.0.0.1:{port_of(container)}", timeout=TEST_TIMEOUT_SECONDS, verify=False)
        )
        return clients[-1]

    start.containers = []
    yield start
    for client in clients:
        client.close()


def port_of(gateway):
    """The port at which a gateway's container listens."""
    return gateway.shared_extensions[HttpServer].port


@pytest.fixture
def login(servers):
    """A function that makes the headers of a user with these roles: `login("customer", "admin")`."""
    key = load_signing_keys(config["JWT_PRIVATE_KEY_FILE"])[0]

    def headers(*roles, user_id=None, age=0):
        issued_at = datetime.now(UTC) - timedelta(seconds=age)
        token = issue(key, user_id=user_id or new_id(), roles=roles, issued_at=issued_at, token_id=new_id())
        return {"Authorization": f"Bearer {token}"}

    return headers


@pytest.fixture
def api(shared_services):
    """The gateway with every service behind it; they keep running between the tests of a module."""
    with config.patch({"WEB_SERVER_ADDRESS": "127.0.0.1:0"}):
        *_, gateway = shared_services(*SERVICE_CLASSES, GatewayService)
    with httpx.Client(
        base_url=f"http://127.0.0.1:{port_of(gateway)}", timeout=TEST_TIMEOUT_SECONDS, verify=False
    ) as api:
        eventually(lambda: api.get("/health/ready").status_code == 200)
        yield api


@pytest.fixture
def own_api(gateway, run_service):
    """The gateway with every service behind it, started for one test."""
    for service in SERVICE_CLASSES:
        run_service(service)
    api = gateway()
    eventually(lambda: api.get("/health/ready").status_code == 200)
    return api


@pytest.fixture
def admin(api, caller):
    """Headers of an administrator."""
    account = {"email": "boss@example.com", "password": PASSWORD}
    user = ok(api.post("/users/register", json=account), 201)["user"]
    caller.users.set_roles(user["id"], ["customer", "admin"])
    return bearer(ok(api.post("/users/login", json=account)))


@pytest.fixture
def session(api):
    """A customer who has just registered."""
    return ok(api.post("/users/register/", json={"email": "ayse@example.com", "password": PASSWORD}), 201)


@pytest.fixture
def product(api, admin):
    """A product with ten units on hand, at 10.00."""
    product = ok(api.post("/products", json={"sku": "A-1", "name": "Çay", "price": "9.90"}, headers=admin), 201)
    stock = {"product_id": product["id"], "product_sku": "A-1", "quantity": 5}
    assert "created" not in ok(api.post("/inventory/create", json=stock, headers=admin), 201)
    ok(api.post("/inventory", json=stock, headers=admin), 200)
    ok(api.put(f"/inventory/{product['id']}", json={"quantity": 7}, headers=admin))
    change = {"delta": 3, "reason": "found"}
    ok(api.post(f"/inventory/{product['id']}/adjustments", json=change, headers=admin), 201)
    return ok(api.put(f"/products/{product['id']}/update", json={"price": "10.00"}, headers=admin))
