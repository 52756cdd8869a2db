"""The text that `make run` prints when all services are ready: the addresses, the demo accounts, an example order."""

from collections.abc import Mapping
from urllib.parse import urlsplit

from deploy.local import ports
from deploy.seed import ADMIN, CUSTOMER, DEFAULT_PASSWORD

REPORT = """
The order suite is running.

  Console     {url}/   (a shop, and what happens in it, live; for customers, administrators and operators)
  API         {url}   (every call: {url}/docs, health: {url}/health/ready)
              {reach}
  RabbitMQ    {amqp}
  Redis       {redis}
  PostgreSQL  {postgres}
  Metrics     {metrics}
  Mails       {mails}
  Logs        var/log/<service>.log
  Addresses   var/env, with users and passwords
  Requests    var/api.http, for the HTTP client of an editor

  Demo accounts, password {password}
    {customer}   a customer
    {admin}  an admin

Place an order (in another terminal; any shell):

  TOKEN=$(curl -s {url}/users/login -H 'Content-Type: application/json' \\
    -d '{{"email": "{customer}", "password": "{password}"}}' | {pick_token})
  PRODUCT=$(curl -s '{url}/products?sku=TEA-RIZE-1000' | {pick_product})
  curl -si {url}/orders -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \\
    -d "{{\\"items\\": [{{\\"product_id\\": \\"$PRODUCT\\", \\"quantity\\": 2}}]}}"; echo
  sleep 1; curl -s '{url}/orders?limit=1' -H "Authorization: Bearer $TOKEN"

In another terminal, in the folder of this clone: `make demo` shows four orders from start to end, `make shell` calls
the services from Python. Ctrl-C here stops everything; so does `make stop`.
"""
LOOPBACK_ONLY = "from this machine only; `GATEWAY_HOST=0.0.0.0 make run` opens it to the network"
OPEN = "open to the network on {address}: everyone who reaches it can use the demo password below"


def render(env: Mapping[str, str]) -> str:
    """Return the report for the addresses of this run."""
    metrics = env["GATEWAY_METRICS_ADDRESS"].partition("-")[0]
    return REPORT.format(
        url=env["GATEWAY_URL"],
        reach=_reach(env["GATEWAY_ADDRESS"]),
        mails=_mails(env),
        amqp=_without_login(env["AMQP_URI"]),
        redis=_without_login(env["REDIS_URL"]),
        postgres=f"{_without_login(env['ORDERS_DATABASE_URL'])} (one database for each service)",
        metrics=f"http://{metrics}/metrics (one for each service: docs/metrics.md)",
        password=env.get("DEMO_PASSWORD") or DEFAULT_PASSWORD,
        customer=CUSTOMER,
        admin=ADMIN,
        pick_token=_pick("access_token"),
        pick_product=_pick("id"),
    )


def _reach(address: str) -> str:
    return LOOPBACK_ONLY if ports.is_loopback(address) else OPEN.format(address=address)


def _without_login(address: str) -> str:
    """Return the address without the user and the password, which do not belong on a screen."""
    parts = urlsplit(address.replace("+psycopg2", ""))
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _pick(field: str) -> str:
    """Return a command that prints the first value of a JSON field, without jq, which is often not installed."""
    return f"""grep -o '"{field}":"[^"]*"' | head -n 1 | cut -d '"' -f 4"""


def _mails(env: Mapping[str, str]) -> str:
    if mailbox := env.get("MAILBOX_URL"):
        return f"{mailbox} shows them; nothing is sent"
    return f"are sent to {env['SMTP_HOST']}" if env.get("SMTP_HOST") else "none are sent, because SMTP_HOST is not set"
