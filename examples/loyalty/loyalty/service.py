"""The entrypoints of the loyalty service."""

from collections.abc import Sequence
from typing import Any, final
from uuid import UUID

from sqlalchemy import func, select

from contracts.base import OPERATOR, Actor, Received
from contracts.errors import PermissionDenied
from contracts.loyalty import LoyaltyRpc
from contracts.orders import OrderCancelled, OrderConfirmed
from extensions.messaging.event_handler import handles
from extensions.operations import operations
from extensions.rpc.server import rpc
from extensions.storage.unit_of_work import UnitOfWork, Work
from loyalty import use_cases
from loyalty.models import Award, Base


@final
class LoyaltyService(operations.Operations, LoyaltyRpc):
    """Points for confirmed orders."""

    name = "loyalty"
    work: UnitOfWork = Work(Base)

    @rpc
    def get_points(self, user_id: UUID, *, actor: Actor = OPERATOR) -> int:
        if not actor.may_see(user_id):
            raise PermissionDenied
        points = select(func.coalesce(func.sum(Award.points), 0)).where(Award.user_id == user_id)
        return self.work.session.scalar(points) or 0

    @handles(OrderConfirmed, OrderCancelled)
    def on_decisions(self, events: Sequence[Received[Any]]) -> None:
        """Award points for confirmed orders, and take them back if an order is cancelled."""
        use_cases.award_points(self.work.session, events)
