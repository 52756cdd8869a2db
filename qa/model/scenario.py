"""What the explorer explores: orders, products, what people and the provider may do, and how much is modelled."""

from dataclasses import dataclass, field

from orders.saga import Command

USER, ADMIN, EXPIRE = Command.CANCEL_BY_USER, Command.CANCEL_BY_ADMIN, Command.EXPIRE
SHIP, DELIVER = Command.SHIP, Command.DELIVER
APPROVED, DECLINED = "approved", "declined"


@dataclass(frozen=True)
class Asked:
    """One order: its lines as (product, quantity), what may be commanded, and what the provider may answer."""

    lines: tuple[tuple[int, int], ...]
    commands: frozenset = frozenset()
    answers: tuple[str, ...] = (APPROVED,)
    foreign: bool = False
    """Orders has never heard of it: all its events are a stranger's, so they come even where that cannot be."""


@dataclass(frozen=True)
class Environment:
    """What PostgreSQL, RabbitMQ and our extensions guarantee. A mutant takes one of these guarantees away."""

    locks: frozenset = frozenset({"order", "reservation", "payment", "stock", "inbox"})
    outbox_in_transaction: bool = True
    inbox_in_transaction: bool = True
    acks_after_commit: bool = True
    relay_waits_for_confirm: bool = True


@dataclass(frozen=True)
class Scenario:
    """A closed world to explore exhaustively."""

    name: str
    orders: tuple[Asked, ...]
    stock: tuple[int | None, ...]
    """What is on hand of each product at first; None where it has no stock record."""
    adjustments: tuple[tuple[int, int], ...] = ()
    """What a person may change, each once and at any time: (product, delta)."""
    workers: int = 2
    """So many transactions may be open at the same time, over all services and replicas."""
    inbox: bool = False
    """False: the inbox has forgotten everything, so that every delivery again reaches the rules."""
    relay: bool = False
    """True: the outbox and its relay are steps of their own. False: what is committed can be delivered."""
    environment: Environment = field(default_factory=Environment)
