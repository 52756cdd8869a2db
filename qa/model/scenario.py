"""The input of the explorer: orders, products, possible commands and provider outcomes, and the environment."""

from dataclasses import dataclass, field

from orders.saga import Command

USER, ADMIN, EXPIRE = Command.CANCEL_BY_USER, Command.CANCEL_BY_ADMIN, Command.EXPIRE
SHIP, DELIVER = Command.SHIP, Command.DELIVER
APPROVED, DECLINED = "approved", "declined"
ALL_LEFT = 0


@dataclass(frozen=True)
class OrderSpec:
    """One order: its lines as (product, quantity), the possible commands, and the possible outcomes of the provider.

    The total of every order has vocabulary.UNITS units of money.
    """

    lines: tuple[tuple[int, int], ...]
    commands: frozenset = frozenset()
    outcomes: tuple[str, ...] = (APPROVED,)
    refunds: tuple[int, ...] = ()
    """The refunds that an administrator may ask for, each once and at any time: units, or ALL_LEFT."""
    foreign: bool = False
    """The order does not exist in orders: its events are foreign, so they may also contradict each other."""


@dataclass(frozen=True)
class Environment:
    """The guarantees of PostgreSQL, RabbitMQ and our extensions. A mutant removes one of them."""

    locks: frozenset = frozenset({"order", "reservation", "payment", "stock", "inbox"})
    outbox_in_transaction: bool = True
    inbox_in_transaction: bool = True
    acks_after_commit: bool = True
    relay_waits_for_confirm: bool = True


@dataclass(frozen=True)
class Scenario:
    """A closed world to explore exhaustively."""

    name: str
    orders: tuple[OrderSpec, ...]
    stock: tuple[int | None, ...]
    """The initial units on hand of each product; None without a stock record."""
    adjustments: tuple[tuple[int, int], ...] = ()
    """Stock adjustments by a person, each possible once and at any time: (product, delta)."""
    workers: int = 2
    """The maximum number of concurrently open transactions, over all services and instances."""
    inbox: bool = False
    """False: the inbox is always empty, so every repeated delivery reaches the rules."""
    relay: bool = False
    """True: the relay's publish and delete are separate steps. False: a committed message can be delivered at once."""
    environment: Environment = field(default_factory=Environment)
