"""What users needs from its process: password hashing off the event loop, and the key that signs access tokens."""

import functools
import hashlib
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from eventlet import patcher, tpool
from eventlet.semaphore import Semaphore
from nameko import config
from nameko.extensions import DependencyProvider

from contracts.errors import ServiceUnavailable
from contracts.users import TooManyFailedLogins
from extensions.cache.rate_limits import Level, Policy, RateLimits
from extensions.security.key_file import KeyFile
from extensions.security.tokens import PublicKeys, load_public_keys
from users.tokens import SigningKey, load_signing_keys
from users.use_cases import SessionPolicy

# argon2id with the parameters that OWASP recommends.
MEMORY_KIB = 19_456
PASSES = 2
LANES = 1
# As many at once as a small machine has cores; more would only take its memory.
AT_ONCE = 2
MAX_WAIT_SECONDS = 3.0
# Who logs in can wait better than who orders: where processors are short, hashing comes after everything else.
NICENESS = 10


class Passwords(DependencyProvider):  # type: ignore[misc]  # Nameko has no types
    """Gives a service `hash`, `matches` and `renewed`: 20 to 50 ms of pure computation, in threads of their own.

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

    def fingerprint(self, password: str, email: str) -> str:
        """Return what tells two passwords for one address apart, always the same for the same; as slow as `hash`.

        It may be stored, because it is as hard to turn back as the hash.
        """
        salt = hashlib.sha256(f"fingerprint for {email}".encode()).digest()
        return str(self._in_turn(functools.partial(self._hasher.hash, salt=salt), password))

    def renewed(self, password: str, password_hash: str) -> str | None:
        """Return a new hash where `password_hash` was made with other parameters than today's, else None."""
        return self.hash(password) if self._hasher.check_needs_rehash(password_hash) else None

    def _in_turn(self, work: Any, *arguments: str) -> Any:
        if not self._turns.acquire(timeout=MAX_WAIT_SECONDS):
            message = "Too many people are logging in at once. Try again shortly."
            raise ServiceUnavailable(message, retry_after=1)
        try:
            return tpool.execute(_gently, work, *arguments)
        finally:
            self._turns.release()


def _gently(work: Callable[..., Any], *arguments: str) -> Any:
    """Do `work` in this thread, which is for nothing else. On Linux each thread has a priority of its own."""
    thread = patcher.original("threading").get_native_id()
    if os.getpriority(os.PRIO_PROCESS, thread) < NICENESS:
        os.setpriority(os.PRIO_PROCESS, thread, NICENESS)
    return work(*arguments)


class FailedLogins(DependencyProvider):  # type: ignore[misc]  # as above
    """Counts the failed logins of each account, for all replicas: guessing a password takes too long to be of use."""

    limits = RateLimits()

    def setup(self) -> None:
        """Read the limits. Raises ValueError for one that is none."""
        name = TooManyFailedLogins.policy
        self._from_one_place = Policy.of(name, config.get("FAILED_LOGINS_PER_ACCOUNT_AND_ADDRESS"))
        self._from_everywhere = Policy.of(name, config.get("FAILED_LOGINS_PER_ACCOUNT"))

    def get_dependency(self, _worker_ctx: Any) -> "FailedLogins":
        """Return what all workers share."""
        return self

    def of(self, email: str, address: str) -> "Failures":
        """Return the counters of an account, there or not, for who comes from `address`."""
        # A blank is in no e-mail address.
        here = (self._from_one_place, f"{email} {address}") if self._from_one_place else None
        everywhere = (self._from_everywhere, email) if self._from_everywhere else None
        return Failures(self.limits, here, everywhere)


@dataclass(frozen=True, slots=True)
class Failures:
    """The failed logins of one account: from one place, and from everywhere; None is not limited."""

    limits: RateLimits
    here: tuple[Policy, str] | None
    everywhere: tuple[Policy, str] | None

    def check(self) -> None:
        """Raise TooManyFailedLogins where no password is taken now."""
        _refuse_over(self.limits.look(*self._counters))

    def add(self) -> None:
        """Count one; raise TooManyFailedLogins where others have used up what was left meanwhile.

        Else many guesses at once would learn which of them was right: the only one that is refused.
        """
        _refuse_over(self.limits.spend(*self._counters))

    def forget(self) -> None:
        """The right one has come from here: that says nothing about the others."""
        if self.here is not None:
            self.limits.forget(*self.here)

    @property
    def _counters(self) -> list[tuple[Policy, str]]:
        return [counter for counter in (self.here, self.everywhere) if counter is not None]


def _refuse_over(levels: Sequence[Level]) -> None:
    seconds = max((level.retry_after for level in levels), default=0)
    if seconds:
        raise TooManyFailedLogins(f"{TooManyFailedLogins.detail} Try again in {seconds} s.", retry_after=seconds)


class Sessions(DependencyProvider):  # type: ignore[misc]  # as above
    """Gives a service its SessionPolicy; without usable keys the service does not start."""

    def setup(self) -> None:
        """Read the keys. Raises TypeError where nobody could verify what we sign."""
        self._private = KeyFile(config["JWT_PRIVATE_KEY_FILE"], load_signing_keys)
        self._public = KeyFile(config["JWT_PUBLIC_KEY_FILE"], load_public_keys)
        self._lifetime = timedelta(days=float(config.get("REFRESH_TOKEN_DAYS", 30)))
        if not _usable(self._private.get(), self._public.get()):
            message = "JWT_PUBLIC_KEY_FILE does not hold the public half of the key in JWT_PRIVATE_KEY_FILE"
            raise TypeError(message)

    def get_dependency(self, _worker_ctx: Any) -> SessionPolicy:
        """Return the keys of the moment, beginning with one that everybody can verify."""
        private, public = self._private.get(), self._public.get()
        return SessionPolicy(_usable(private, public) or private, public, self._lifetime)


def _usable(private: tuple[SigningKey, ...], public: PublicKeys) -> tuple[SigningKey, ...]:
    return tuple(key for key in private if key.kid in public)
