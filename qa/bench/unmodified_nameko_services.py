"""Services of unmodified Nameko, written like its examples, without tuning and without our extensions.

Each runs with `nameko run --config qa/bench/unmodified_nameko.yml qa.bench.unmodified_nameko_services:<class>`. The
order is committed, then its event is dispatched: a crash in between loses the event. There is no saga.
"""

import json
import uuid

from nameko.events import EventDispatcher, event_handler
from nameko.rpc import ServiceRpc, rpc
from nameko.web.handlers import http
from nameko_sqlalchemy import DatabaseSession
from sqlalchemy import ForeignKey, Numeric, Text, Uuid
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

PRICE = "10.90"


class Base(DeclarativeBase):
    """The base of the tables."""


class Order(Base):
    __tablename__ = "unmodified_orders"

    id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)
    status: Mapped[str] = mapped_column(Text)
    items: Mapped[list["Item"]] = relationship()


class Item(Base):
    __tablename__ = "unmodified_items"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("unmodified_orders.id"))
    product_id: Mapped[uuid.UUID] = mapped_column(Uuid)
    quantity: Mapped[int]
    price: Mapped[str] = mapped_column(Numeric(12, 2))


class Notification(Base):
    __tablename__ = "unmodified_notified"

    order_id: Mapped[uuid.UUID] = mapped_column(Uuid, primary_key=True)


class Gateway:
    name = "unmodified_gateway"
    orders = ServiceRpc("unmodified_orders")

    @http("GET", "/constant")
    def constant(self, request):
        return "constant"

    @http("GET", "/orders/<order_id>")
    def get_order(self, request, order_id):
        return json.dumps(self.orders.get_order(order_id))

    @http("POST", "/orders")
    def create_order(self, request):
        order = self.orders.create_order(json.loads(request.get_data(as_text=True))["items"])
        return 201, json.dumps(order)


class Orders:
    name = "unmodified_orders"
    session = DatabaseSession(Base)
    dispatch = EventDispatcher()

    @rpc
    def create_order(self, items):
        order = Order(
            id=uuid.uuid4(),
            status="CREATED",
            items=[
                Item(product_id=uuid.UUID(one["product_id"]), quantity=one["quantity"], price=PRICE) for one in items
            ],
        )
        self.session.add(order)
        self.session.commit()
        view = _view(order)
        self.dispatch("order_created", view)
        return view

    @rpc
    def get_order(self, order_id):
        return _view(self.session.get(Order, uuid.UUID(order_id)))


class Notifications:
    name = "unmodified_notifications"
    session = DatabaseSession(Base)

    @event_handler("unmodified_orders", "order_created")
    def on_order_created(self, order):
        self.session.add(Notification(order_id=uuid.UUID(order["id"])))
        self.session.commit()


def _view(order):
    items = [{"product_id": str(one.product_id), "quantity": one.quantity, "price": PRICE} for one in order.items]
    return {"id": str(order.id), "status": order.status, "items": items}
