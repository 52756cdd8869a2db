"""The contract of the loyalty service."""

from typing import Protocol
from uuid import UUID

from contracts.base import OPERATOR, Actor
from contracts.operations import OperatedRpc


class LoyaltyRpc(OperatedRpc, Protocol):
    """The RPC interface of loyalty."""

    def get_points(self, user_id: UUID, *, actor: Actor = OPERATOR) -> int:
        """Return the points of a user. Raises PermissionDenied for the points of somebody else."""
