"""The same saga with FastAPI, FastStream and asyncpg, written as their documentation suggests.

It has no outbox and no inbox: an event is published after the commit, so a crash in between loses it, and a second
delivery is handled twice. Otherwise it does what the suite does for a confirmed order, in the suite's tables: it
verifies tokens, reads prices from the catalog, records every reply in the timeline, keeps the stock ledger, and stores
notifications. It uses quorum queues, persistent messages and publisher confirms (FastStream's default).

One process for each of orders, catalog (`uvicorn qa.bench.faststream_app:orders`), inventory, payments and
notifications (`python -m qa.bench.faststream_app`); each has the address of its database in BENCH_DSN.
"""

import json
import logging
import os
import uuid
from contextlib import asynccontextmanager
from datetime import timedelta
from decimal import Decimal
from typing import Annotated

import asyncpg
import httpx
import jwt
import uvloop
from fastapi import Depends, FastAPI, Header, HTTPException
from faststream import FastStream
from faststream.rabbit import ExchangeType, QueueType, RabbitBroker, RabbitExchange, RabbitQueue
from pydantic import BaseModel

SECRET = "a secret that only the benchmark uses"
DEADLINE = timedelta(seconds=30)
EXCHANGE = RabbitExchange("faststream.events", type=ExchangeType.TOPIC, durable=True)


class Line(BaseModel):
    """One product of an order."""

    product_id: uuid.UUID
    quantity: int


class NewOrder(BaseModel):
    """The body of a request."""

    items: list[Line]


class OrderCreated(BaseModel):
    """order.created"""

    order_id: uuid.UUID
    user_id: uuid.UUID
    total_amount: Decimal
    items: list[Line]


class OrderEvent(BaseModel):
    """Every other event."""

    order_id: uuid.UUID
    user_id: uuid.UUID | None = None


class Resources:
    """A process's database and broker."""

    def __init__(self):
        self.broker = RabbitBroker(os.environ.get("BENCH_AMQP", ""), log_level=logging.DEBUG)
        self.pool = None

    @asynccontextmanager
    async def open(self, _app=None):
        """Open the resources for the lifespan of the process."""
        self.pool = await asyncpg.create_pool(os.environ["BENCH_DSN"], min_size=2, max_size=10)
        self.client = httpx.AsyncClient(base_url=os.environ.get("BENCH_CATALOG", ""))
        yield
        await self.client.aclose()
        await self.pool.close()

    @asynccontextmanager
    async def open_with_broker(self, _app=None):
        """As `open`, and start the broker too, for processes in which FastStream does not start it."""
        async with self.open():
            await self.broker.start()
            yield
            await self.broker.stop()

    @asynccontextmanager
    async def transaction(self):
        """A connection in a transaction."""
        async with self.pool.acquire() as connection, connection.transaction():
            yield connection

    async def publish(self, name, event):
        """Publish an event with a confirm."""
        await self.broker.publish(
            event,
            exchange=EXCHANGE,
            routing_key=name,
            persist=True,
            message_id=str(uuid.uuid4()),
            correlation_id=str(event.order_id),
        )


resources = Resources()


def consumes(service, event):
    """Subscribe a handler of `service` to an event."""
    queue = RabbitQueue(f"faststream.{service}.{event}", queue_type=QueueType.QUORUM, durable=True, routing_key=event)
    return resources.broker.subscriber(queue, EXCHANGE)


# Catalog

catalog = FastAPI(lifespan=resources.open)


@catalog.get("/products")
async def get_products(ids: str):
    rows = await resources.pool.fetch(
        "SELECT id, sku, price FROM products WHERE id = ANY($1) AND is_active",
        [uuid.UUID(one) for one in ids.split(",")],
    )
    return [{"id": str(row["id"]), "sku": row["sku"], "price": str(row["price"])} for row in rows]


# Orders

orders = FastAPI(lifespan=resources.open_with_broker)


async def current_user(authorization: Annotated[str, Header()]):
    """Return the user of the token."""
    try:
        return uuid.UUID(jwt.decode(authorization.removeprefix("Bearer "), SECRET, algorithms=["HS256"])["sub"])
    except jwt.InvalidTokenError as error:
        raise HTTPException(401) from error


@orders.post("/orders", status_code=201)
async def create_order(wanted: NewOrder, user_id: Annotated[uuid.UUID, Depends(current_user)]):
    ids = ",".join(sorted({str(item.product_id) for item in wanted.items}))
    found = (await resources.client.get("/products", params={"ids": ids})).json()
    products = {uuid.UUID(one["id"]): one for one in found}
    if any(item.product_id not in products for item in wanted.items):
        raise HTTPException(422)
    order_id = uuid.uuid4()
    total = sum(Decimal(products[item.product_id]["price"]) * item.quantity for item in wanted.items)
    created = OrderCreated(order_id=order_id, user_id=user_id, total_amount=total, items=wanted.items)
    async with resources.transaction() as connection:
        await connection.execute(
            "INSERT INTO orders (id, user_id, status, total_amount, currency, stock_status, payment_status, version, "
            "deadline_at) VALUES ($1, $2, 'CREATED', $3, 'TRY', 'PENDING', 'PENDING', 1, clock_timestamp() + $4)",
            order_id, user_id, total, DEADLINE,
        )  # fmt: skip
        await connection.executemany(
            "INSERT INTO order_items (order_id, line, product_id, product_sku, quantity, price_snapshot) "
            "VALUES ($1, $2, $3, $4, $5, $6)",
            [
                (order_id, number, item.product_id, products[item.product_id]["sku"], item.quantity,
                 Decimal(products[item.product_id]["price"]))
                for number, item in enumerate(wanted.items)
            ],
        )  # fmt: skip
        await record(connection, order_id, "order.created", created.model_dump_json())
    await resources.publish("order.created", created)
    return {"id": str(order_id), "status": "CREATED", "total_amount": str(total)}


async def record(connection, order_id, name, data):
    """Add a line to the timeline."""
    await connection.execute(
        "INSERT INTO timeline (order_id, event, event_id, service, data) VALUES ($1, $2, $3, $4, $5)",
        order_id, name, uuid.uuid4(), name.partition(".")[0], data,
    )  # fmt: skip


async def handle(name, event, column, state):
    """Record a reply, and confirm the order after both positive replies."""
    async with resources.transaction() as connection:
        order = await connection.fetchrow(
            "SELECT user_id, status, stock_status, payment_status FROM orders WHERE id = $1 FOR UPDATE", event.order_id
        )
        after = dict(order) | {column: state}
        agreed = (after["stock_status"], after["payment_status"]) == ("RESERVED", "AUTHORIZED")
        confirms = agreed and order["status"] == "CREATED"
        await record(connection, event.order_id, name, event.model_dump_json())
        await connection.execute(
            "UPDATE orders SET status = $2, stock_status = $3, payment_status = $4, version = version + 1, "
            "updated_at = clock_timestamp() WHERE id = $1",
            event.order_id, "CONFIRMED" if confirms else order["status"],
            after["stock_status"], after["payment_status"],
        )  # fmt: skip
        if confirms:
            await record(connection, event.order_id, "order.confirmed", json.dumps({"order_id": str(event.order_id)}))
    if confirms:
        await resources.publish("order.confirmed", OrderEvent(order_id=event.order_id, user_id=order["user_id"]))


async def on_stock_reserved(event: OrderEvent):
    await handle("inventory.stock_reserved", event, "stock_status", "RESERVED")


async def on_stock_committed(event: OrderEvent):
    await handle("inventory.stock_committed", event, "stock_status", "COMMITTED")


async def on_payment_authorized(event: OrderEvent):
    await handle("payment.authorized", event, "payment_status", "AUTHORIZED")


async def on_payment_captured(event: OrderEvent):
    await handle("payment.captured", event, "payment_status", "CAPTURED")


# Inventory


async def reserve_stock(event: OrderCreated):
    lines = sorted(event.items, key=lambda line: line.product_id)
    async with resources.transaction() as connection:
        await connection.execute("INSERT INTO reservations (order_id, status) VALUES ($1, 'RESERVED')", event.order_id)
        await connection.executemany(
            "INSERT INTO reservation_lines (order_id, product_id, quantity) VALUES ($1, $2, $3)",
            [(event.order_id, line.product_id, line.quantity) for line in lines],
        )
        for line in lines:
            await move(connection, event.order_id, line.product_id, "RESERVED", 0, line.quantity)
    await resources.publish("inventory.stock_reserved", OrderEvent(order_id=event.order_id))


async def commit_stock(event: OrderEvent):
    async with resources.transaction() as connection:
        lines = await connection.fetch(
            "SELECT product_id, quantity FROM reservation_lines WHERE order_id = $1 ORDER BY product_id", event.order_id
        )
        await connection.execute(
            "UPDATE reservations SET status = 'COMMITTED', updated_at = clock_timestamp() WHERE order_id = $1",
            event.order_id,
        )
        for product_id, quantity in lines:
            await move(connection, event.order_id, product_id, "COMMITTED", -quantity, -quantity)
    await resources.publish("inventory.stock_committed", OrderEvent(order_id=event.order_id))


async def move(connection, order_id, product_id, kind, on_hand, reserved):
    """Change the stock of a product, and add to its ledger."""
    balance = await connection.fetchrow(
        "UPDATE stock SET on_hand = on_hand + $2, reserved = reserved + $3, updated_at = clock_timestamp() "
        "WHERE product_id = $1 AND on_hand + $2 >= reserved + $3 RETURNING on_hand, reserved",
        product_id, on_hand, reserved,
    )  # fmt: skip
    await connection.execute(
        "INSERT INTO movements (id, product_id, kind, on_hand_delta, reserved_delta, on_hand, reserved, order_id) "
        "VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        uuid.uuid4(), product_id, kind, on_hand, reserved, balance["on_hand"], balance["reserved"], order_id,
    )  # fmt: skip


# Payments


async def authorize(event: OrderCreated):
    async with resources.transaction() as connection:
        await connection.execute(
            "INSERT INTO payments (id, order_id, user_id, amount, currency, status, transaction_reference, "
            "cause_message_id, cause_request_id, cause_traceparent) "
            "VALUES ($1, $2, $3, $4, 'TRY', 'AUTHORIZED', 'faststream', $2, '', '')",
            uuid.uuid4(), event.order_id, event.user_id, event.total_amount,
        )  # fmt: skip
    await resources.publish("payment.authorized", OrderEvent(order_id=event.order_id))


async def capture(event: OrderEvent):
    async with resources.transaction() as connection:
        await connection.execute(
            "UPDATE payments SET status = 'CAPTURED', updated_at = clock_timestamp() WHERE order_id = $1",
            event.order_id,
        )
    await resources.publish("payment.captured", OrderEvent(order_id=event.order_id))


# Notifications


async def on_order_created(event: OrderCreated):
    await notify(event, "order.created")


async def on_order_confirmed(event: OrderEvent):
    await notify(event, "order.confirmed")


async def notify(event, kind):
    """Store a notification for the user."""
    async with resources.transaction() as connection:
        await connection.execute(
            "INSERT INTO notifications (id, user_id, about_id, order_id, kind, subject, body) "
            "VALUES ($1, $2, $3, $3, $4, 'Your order', $5)",
            uuid.uuid4(), event.user_id, event.order_id, kind, f"It is now {kind}.",
        )  # fmt: skip


HANDLERS = {
    "orders": {
        "inventory.stock_reserved": on_stock_reserved,
        "inventory.stock_committed": on_stock_committed,
        "payment.authorized": on_payment_authorized,
        "payment.captured": on_payment_captured,
    },
    "inventory": {"order.created": reserve_stock, "order.confirmed": commit_stock},
    "payments": {"order.created": authorize, "order.confirmed": capture},
    "notifications": {"order.created": on_order_created, "order.confirmed": on_order_confirmed},
}
for _event, _handler in HANDLERS.get(os.environ.get("BENCH_SERVICE"), {}).items():
    consumes(os.environ["BENCH_SERVICE"], _event)(_handler)
consumer = FastStream(resources.broker, lifespan=resources.open)

if __name__ == "__main__":
    uvloop.run(consumer.run())  # uvicorn uses the same event loop
