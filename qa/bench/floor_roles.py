"""The floor's roles, each with the smallest number of statements: `python -m qa.bench.floor_roles <role>`.

They use the suite's tables. Every order succeeds: the floor has no failure paths.
"""

import os
import signal
import sys
from collections import Counter

import psycopg2
from psycopg2.extras import Json, execute_values

from contracts.ids import new_id
from qa.bench.floor_bus import CONSUMERS, Bus, event

LOCK_ORDERS = """
    SELECT id::text, user_id::text, total_amount::text, currency, status, stock_status, payment_status
    FROM orders WHERE id = ANY(%s::uuid[]) ORDER BY id FOR UPDATE
"""
UPDATE_ORDERS = """
    UPDATE orders SET status = after.status, stock_status = after.stock, payment_status = after.payment,
           version = version + 1, updated_at = clock_timestamp()
    FROM (VALUES %s) AS after (id, status, stock, payment) WHERE orders.id = after.id::uuid
"""
TIMELINE = "INSERT INTO timeline (order_id, event, event_id, service, data) VALUES %s"
LOCK_STOCK = """
    SELECT product_id::text, on_hand, reserved FROM stock WHERE product_id = ANY(%s::uuid[]) ORDER BY product_id
    FOR UPDATE
"""
UPDATE_STOCK = """
    UPDATE stock SET on_hand = after.on_hand, reserved = after.reserved, updated_at = clock_timestamp()
    FROM (VALUES %s) AS after (id, on_hand, reserved) WHERE stock.product_id = after.id::uuid
"""
MOVEMENTS = """
    INSERT INTO movements (id, product_id, kind, on_hand_delta, reserved_delta, on_hand, reserved, order_id) VALUES %s
"""
LINES = """
    SELECT order_id::text, product_id::text, quantity FROM reservation_lines WHERE order_id = ANY(%s::uuid[])
"""
NEW_PAYMENTS = """
    INSERT INTO payments (id, order_id, user_id, amount, currency, status, cause_message_id, cause_request_id,
                          cause_traceparent) VALUES %s
"""
AUTHORIZE = """
    UPDATE payments SET status = 'AUTHORIZED', transaction_reference = 'floor', updated_at = clock_timestamp()
    WHERE order_id = ANY(%s::uuid[])
"""
CAPTURE = """
    UPDATE payments SET status = 'CAPTURED', updated_at = clock_timestamp()
    WHERE order_id = ANY(%s::uuid[]) AND status = 'AUTHORIZED'
"""
NOTIFICATIONS = "INSERT INTO notifications (id, user_id, about_id, order_id, kind, subject, body) VALUES %s"
REPLIES = {
    "inventory.stock_reserved": ("stock_status", "RESERVED"),
    "inventory.stock_committed": ("stock_status", "COMMITTED"),
    "payment.authorized": ("payment_status", "AUTHORIZED"),
    "payment.captured": ("payment_status", "CAPTURED"),
}


def apply_replies(cursor, name, received):
    """Orders: record the replies, and confirm orders with both positive replies."""
    column, state = REPLIES[name]
    cursor.execute(LOCK_ORDERS, ([body["order_id"] for body, _ in received],))
    fields = [one.name for one in cursor.description]
    orders = {row[0]: dict(zip(fields, row, strict=True)) for row in cursor.fetchall()}
    timeline = [
        (body["order_id"], name, message_id, name.partition(".")[0], Json(body)) for body, message_id in received
    ]
    confirmed = []
    for order in orders.values():
        order[column] = state
        both = order["stock_status"] == "RESERVED" and order["payment_status"] == "AUTHORIZED"
        if both and order["status"] == "CREATED":
            order["status"] = "CONFIRMED"
            facts = {key: order[key] for key in ("user_id", "total_amount", "currency")}
            confirmed.append(event("order.confirmed", order["id"], **facts))
            timeline.append((order["id"], "order.confirmed", confirmed[-1][0], "orders", Json(facts)))
    execute_values(cursor, TIMELINE, timeline)
    states = [(one["id"], one["status"], one["stock_status"], one["payment_status"]) for one in orders.values()]
    execute_values(cursor, UPDATE_ORDERS, states)
    return confirmed


def reserve_stock(cursor, _name, received):
    """Inventory: reserve all lines of each order."""
    reservations = [(body["order_id"], "RESERVED") for body, _ in received]
    lines = [(body["order_id"], item["product_id"], item["quantity"]) for body, _ in received for item in body["items"]]
    execute_values(cursor, "INSERT INTO reservations (order_id, status) VALUES %s", reservations)
    execute_values(cursor, "INSERT INTO reservation_lines (order_id, product_id, quantity) VALUES %s", lines)
    _move_stock(cursor, "RESERVED", [(*line, 0, line[2]) for line in lines])
    return [event("inventory.stock_reserved", body["order_id"]) for body, _ in received]


def commit_stock(cursor, _name, received):
    """Inventory: take the reserved units from the stock."""
    order_ids = [body["order_id"] for body, _ in received]
    cursor.execute(LINES, (order_ids,))
    lines = cursor.fetchall()
    cursor.execute(
        "UPDATE reservations SET status = 'COMMITTED', updated_at = clock_timestamp() WHERE order_id = ANY(%s::uuid[])",
        (order_ids,),
    )
    _move_stock(cursor, "COMMITTED", [(*line, -line[2], -line[2]) for line in lines])
    return [event("inventory.stock_committed", order_id) for order_id in order_ids]


def _move_stock(cursor, kind, moves):
    """Change the stock under its lock, and add each balance to the ledger. ValueError for a negative balance."""
    cursor.execute(LOCK_STOCK, (sorted({move[1] for move in moves}),))
    stock = {row[0]: (row[1], row[2]) for row in cursor.fetchall()}
    ledger = []
    for order_id, product_id, _quantity, on_hand, reserved in moves:
        balance = (stock[product_id][0] + on_hand, stock[product_id][1] + reserved)
        if not 0 <= balance[1] <= balance[0]:
            raise ValueError(f"not enough stock of {product_id}")
        stock[product_id] = balance
        ledger.append((str(new_id()), product_id, kind, on_hand, reserved, *balance, order_id))
    execute_values(cursor, MOVEMENTS, ledger)
    execute_values(cursor, UPDATE_STOCK, [(key, *balance) for key, balance in stock.items()])


def open_payments(cursor, _name, received):
    """Payments: commit PENDING payments before the provider call, as the contract requires; then authorise them."""
    rows = [
        (str(new_id()), one["order_id"], one["user_id"], one["total_amount"], one["currency"], "PENDING", key, key, key)
        for one, key in received
    ]
    execute_values(cursor, NEW_PAYMENTS, rows)
    cursor.connection.commit()
    order_ids = [body["order_id"] for body, _ in received]
    cursor.execute(AUTHORIZE, (order_ids,))
    return [
        event("payment.authorized", row[1], payment_id=row[0], amount=row[3], currency=row[4], transaction_reference="")
        for row in rows
    ]


def capture_payments(cursor, _name, received):
    """Payments: capture."""
    order_ids = [body["order_id"] for body, _ in received]
    cursor.execute(CAPTURE, (order_ids,))
    return [event("payment.captured", order_id) for order_id in order_ids]


def notify(cursor, name, received):
    """Notifications: add a row for each event."""
    rows = [
        (str(new_id()), body["user_id"], body["order_id"], body["order_id"], name, "Your order", f"It is now {name}.")
        for body, _ in received
    ]
    execute_values(cursor, NOTIFICATIONS, rows)
    return []


HANDLERS = {
    "orders": dict.fromkeys(REPLIES, apply_replies),
    "inventory": {"order.created": reserve_stock, "order.confirmed": commit_stock},
    "payments": {"order.created": open_payments, "order.confirmed": capture_payments},
    "notifications": {"order.created": notify, "order.confirmed": notify},
}


def check(cursors):
    """Return the numbers of inconsistent records after a run, by name; empty if there are none."""
    facts = Counter()
    cursors["inventory"].execute("SELECT count(*) FROM stock WHERE reserved <> 0 OR on_hand < 0")
    facts["products with stock still reserved"] = cursors["inventory"].fetchone()[0]
    cursors["payments"].execute("SELECT count(*) FROM payments WHERE status <> 'CAPTURED'")
    facts["payments not captured"] = cursors["payments"].fetchone()[0]
    cursors["orders"].execute(
        "SELECT count(*) FROM orders "
        "WHERE (status, stock_status, payment_status) <> ('CONFIRMED', 'COMMITTED', 'CAPTURED')"
    )
    facts["orders not settled"] = cursors["orders"].fetchone()[0]
    for service, cursor in cursors.items():
        cursor.execute("SELECT count(*) FROM outbox")
        facts[f"rows left in the outbox of {service}"] = cursor.fetchone()[0]
    return {name: number for name, number in facts.items() if number}


def main(role):
    """Run one role until SIGTERM."""
    over = []
    signal.signal(signal.SIGTERM, lambda *_: over.append(True))
    events = [name for name, services in CONSUMERS.items() if role in services]
    bus = Bus(os.environ["AMQP_URI"], psycopg2.connect(os.environ["FLOOR_DSN"]), events, role)
    print("ready", flush=True)
    bus.serve(HANDLERS[role], lambda: bool(over))
    bus.sweep()


if __name__ == "__main__":
    main(sys.argv[1])
