"""What users needs from its process: password hashing off the event loop, and the key that signs access tokens."""

import secrets
from datetime import timedelta
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from eventlet import tpool
from eventlet.semaphore import Semaphore
from nameko import config
from nameko.extensions import DependencyProvider

from contracts.errors import ServiceUnavailable
from users.tokens import load_signing_key
from users.use_cases import SessionPolicy

# argon2id with the parameters that OWASP recommends.
MEMORY_KIB = 19_456
PASSES = 2
LANES = 1
# As many at once as a small machine has cores; more would only take its memory.
AT_ONCE = 2
MAX_WAIT_SECONDS = 3.0


class Passwords(DependencyProvider):  # type: ignore[misc]  # Nameko has no types
    """Gives a service `hash` and `matches`: 20 to 50 ms of pure computation each, in a thread of its own.

    A worker that calls them must hold no transaction open.
    """

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
        self._turns = Semaphore(AT_ONCE)
        self._nobodys = ""

    def setup(self) -> None:
        """Make the hash that nothing matches, for accounts that do not exist."""
        self._nobodys = self._hasher.hash(secrets.token_urlsafe())

    def get_dependency(self, _worker_ctx: Any) -> "Passwords":
        """Return what all workers share."""
        return self

    def hash(self, password: str) -> str:
        """Return the argon2id hash of `password`, its salt and parameters included."""
        return str(self._in_turn(self._hasher.hash, password))

    def matches(self, password: str, password_hash: str | None) -> bool:
        """Tell whether `password` is the one that was hashed; without a hash it isn't, after just as long a time."""
        try:
            self._in_turn(self._hasher.verify, password_hash or self._nobodys, password)
        except (VerificationError, InvalidHashError):
            return False
        return password_hash is not None

    def _in_turn(self, work: Any, *arguments: str) -> Any:
        if not self._turns.acquire(timeout=MAX_WAIT_SECONDS):
            message = "Too many people are logging in at once. Try again shortly."
            raise ServiceUnavailable(message, retry_after=1)
        try:
            return tpool.execute(work, *arguments)
        finally:
            self._turns.release()


class Sessions(DependencyProvider):  # type: ignore[misc]  # as above
    """Gives a service its SessionPolicy; without a usable key the service does not start."""

    def setup(self) -> None:
        """Read the key."""
        key = load_signing_key(config["JWT_PRIVATE_KEY_FILE"])
        self._policy = SessionPolicy(key, timedelta(days=float(config.get("REFRESH_TOKEN_DAYS", 30))))

    def get_dependency(self, _worker_ctx: Any) -> SessionPolicy:
        """Return what all workers share."""
        return self._policy
