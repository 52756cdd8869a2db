"""The use cases of orders, each in its own transaction."""

from datetime import timedelta
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from contracts.ids import new_id
from contracts.orders import OrderLine
from orders.pricing import PricedOrder
from orders.use_cases import NewOrder, create_orders
from tests.service.stateful import SETTINGS, Transactions

PRODUCTS = st.integers(min_value=1, max_value=9)
CENTS = st.integers(min_value=0, max_value=10**7)  # five lines cost less than the most that an order may cost
BASKETS = st.lists(
    st.dictionaries(PRODUCTS, st.tuples(st.integers(1, 10_000), CENTS), min_size=1, max_size=5), min_size=1, max_size=9
)


def new_order(basket):
    """An order as pricing returns it."""
    lines = tuple(
        OrderLine(
            product_id=new_id(), product_sku=f"S{product}", quantity=quantity, price_snapshot=Decimal(cents) / 100
        )
        for product, (quantity, cents) in basket.items()
    )
    return NewOrder(PricedOrder(lines, sum(line.price_snapshot * line.quantity for line in lines)), new_id())


def place(transactions, batches):
    """Place orders; return the result, event and rows of each, without the values that are unique to an order."""
    views, events = [], []
    for batch in batches:
        with transactions.open(events) as (session, publish):
            views += create_orders(session, batch, "TRY", timedelta(seconds=30), publish)
    return [
        (
            view.model_dump(exclude={"id", "created_at", "updated_at"}),
            event.model_dump(exclude={"order_id"}),
            rows(transactions, view, event),
        )
        for view, event in zip(views, events, strict=True)
    ]


def rows(transactions, view, event):
    """The stored rows of an order."""
    assert event.order_id == view.id
    (order,) = transactions.read(
        "SELECT user_id, status, cancel_reason, total_amount, currency, stock_status, payment_status, version"
        " FROM orders WHERE id = :id AND created_at = :created_at AND updated_at = :updated_at"
        " AND deadline_at - created_at BETWEEN '29 s' AND '31 s'",
        id=view.id,
        created_at=view.created_at,
        updated_at=view.updated_at,
    )
    lines = transactions.read(
        "SELECT line, product_id, product_sku, quantity, price_snapshot FROM order_items WHERE order_id = :id"
        " ORDER BY line",
        id=view.id,
    )
    (noted,) = transactions.read("SELECT event, service, data FROM timeline WHERE order_id = :id", id=view.id)
    assert noted.data == event.model_dump(mode="json")
    return order, lines, (noted.event, noted.service)


@SETTINGS
@given(BASKETS)
def test_a_batch_has_the_same_results_as_its_orders_one_by_one(servers, baskets):
    transactions = Transactions("orders")
    orders = [new_order(basket) for basket in baskets]
    try:
        assert place(transactions, [orders]) == place(transactions, [[order] for order in orders])
    finally:
        transactions.close()
