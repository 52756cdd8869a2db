"""What `make run` prints when everything is up: where it is, who may log in, and an order to try."""

from collections.abc import Mapping

from deploy.seed import ADMIN, CUSTOMER, DEFAULT_PASSWORD

REPORT = """
The order suite is running.

  API         {url}   (health: {url}/health/ready)
  RabbitMQ    {amqp}
  Redis       {redis}
  PostgreSQL  {postgres}
  Metrics     {metrics}
  Logs        var/log/<service>.log
  Addresses   var/env

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

Talk to the services from Python, in the folder of this clone:

  . var/env && .venv/bin/nameko shell --config config.yml
  >>> n.rpc.catalog.list_products()

`make demo` in another terminal tells the four stories of an order. Ctrl-C here stops everything.
"""


def render(env: Mapping[str, str]) -> str:
    """The report for this run's addresses."""
    databases = {name: value for name, value in env.items() if name.endswith("_DATABASE_URL")}
    example = databases["ORDERS_DATABASE_URL"].replace("+psycopg2", "")
    return REPORT.format(
        url=env["GATEWAY_URL"],
        amqp=env["AMQP_URI"],
        redis=env["REDIS_URL"],
        postgres=f"{example} (and five more: one database per service)",
        metrics=f"http://{env['GATEWAY_METRICS_ADDRESS'].partition('-')[0]}/metrics (the others: docs/metrics.md)",
        password=env.get("DEMO_PASSWORD") or DEFAULT_PASSWORD,
        customer=CUSTOMER,
        admin=ADMIN,
        # jq is often not there; sed always is. The first match is meant: the document's own id comes first.
        pick_token=_pick("access_token"),
        pick_product=_pick("id"),
    )


def _pick(field: str) -> str:
    return f"""python3 -c 'import json, sys; d = json.load(sys.stdin); print(d.get("items", [d])[0]["{field}"])'"""
