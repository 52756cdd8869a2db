"""Dependencies of users: password hashing in threads, failed-login counters, and the keys that sign access tokens."""

import functools
import hashlib
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from eventlet import patcher, tpool
from nameko import config
from nameko.extensions import DependencyProvider

from contracts.errors import ServiceUnavailable
from contracts.users import TooManyFailedLogins
from extensions.cache.rate_limits import Policy, Quota, RateLimits
from extensions.observability.traces import current_trace
from extensions.runtime.bulkhead import Bulkhead
from extensions.security.access_tokens import PublicKeys, load_public_keys
from extensions.security.key_reloader import KeyFile
from users.token_issuer import SigningKey, load_signing_keys
from users.use_cases import SessionPolicy

# argon2id with the parameters that OWASP recommends.
MEMORY_KIB = 19_456
PASSES = 2
LANES = 1
# Hashes at once: the cores of a small machine. More would use more memory and not be faster.
AT_ONCE = 2
# Hashes that run or wait. RPC_PREFETCH is the same number by default.
MAX_HASHES = 16
# How long a hash may take with its wait, if no caller waits for it.
MAX_SECONDS = 6.0
# Of the time that is left a hash may wait for this share. The rest is left to compute it on a busy machine.
WAITING_SHARE = 0.5
# A lower priority than the event loop of this service and, where no container separates them, than other services. It
# is a share, half of what they get. A tenth (10) was too little on a machine that others keep busy: beside two busy
# loops for each core, two hashes at a time took 3.8 s each with 10, 2.1 s with 5, and 0.8 s with the usual priority.
NICENESS = 3


class Passwords(DependencyProvider):  # type: ignore[misc]  # Nameko has no types
    """Gives a service `hash`, `matches` and `renewed`. Each takes 20 to 50 ms of computation, in separate threads.

    A hash that would not be ready at the deadline of the request is refused with ServiceUnavailable, at once if that is
    known from the earlier ones. A worker that calls them must hold no transaction open.
    """

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
        self._bulkhead = Bulkhead(AT_ONCE, MAX_HASHES, _too_many)
        self._unknown_account_hash = ""

    def setup(self) -> None:
        """Create the hash that is checked for accounts that do not exist, so that they take the same time."""
        self._unknown_account_hash = self._hasher.hash(secrets.token_urlsafe())

    def get_dependency(self, _worker_ctx: Any) -> "Passwords":
        """Return this provider; all workers share it."""
        return self

    def hash(self, password: str) -> str:
        """Return the argon2id hash of `password`, including its salt and parameters."""
        return str(self._run_in_thread(self._hasher.hash, password))

    def matches(self, password: str, password_hash: str | None) -> bool:
        """Tell whether `password` matches the hash. Without a hash: False, after the same time."""
        try:
            self._run_in_thread(self._hasher.verify, password_hash or self._unknown_account_hash, password)
        except (VerificationError, InvalidHashError):
            return False
        return password_hash is not None

    def fingerprint(self, password: str, email: str) -> str:
        """Return a deterministic hash of a password for one address, for comparisons. As slow as `hash`.

        It may be stored: it is as hard to invert as the hash.
        """
        salt = hashlib.sha256(f"fingerprint for {email}".encode()).digest()
        return str(self._run_in_thread(functools.partial(self._hasher.hash, salt=salt), password))

    def renewed(self, password: str, password_hash: str) -> str | None:
        """Return a new hash if `password_hash` was made with other parameters than the current ones, else None."""
        return self.hash(password) if self._hasher.check_needs_rehash(password_hash) else None

    def _run_in_thread(self, work: Any, *arguments: str) -> Any:
        self._bulkhead.acquire(WAITING_SHARE * current_trace().remaining(MAX_SECONDS))
        began = time.monotonic()
        try:
            return tpool.execute(_with_low_priority, work, *arguments)
        finally:
            self._bulkhead.record_duration(time.monotonic() - began)
            self._bulkhead.release()


def _too_many() -> ServiceUnavailable:
    return ServiceUnavailable("Too many people are logging in at once. Try again shortly.", retry_after=1)


def _with_low_priority(work: Callable[..., Any], *arguments: str) -> Any:
    """Run `work` in this dedicated thread with a low priority, which Linux sets per thread."""
    thread = patcher.original("threading").get_native_id()
    if os.getpriority(os.PRIO_PROCESS, thread) < NICENESS:
        os.setpriority(os.PRIO_PROCESS, thread, NICENESS)
    return work(*arguments)


class FailedLogins(DependencyProvider):  # type: ignore[misc]  # as above
    """Counts the failed logins of each account for all instances, so that guessing a password takes too long."""

    limits = RateLimits()

    def setup(self) -> None:
        """Read the limits. Raises ValueError for an invalid one."""
        name = TooManyFailedLogins.policy
        self._per_address = Policy.of(name, config.get("FAILED_LOGINS_PER_ACCOUNT_AND_ADDRESS"))
        self._per_account = Policy.of(name, config.get("FAILED_LOGINS_PER_ACCOUNT"))

    def get_dependency(self, _worker_ctx: Any) -> "FailedLogins":
        """Return this provider; all workers share it."""
        return self

    def of(self, email: str, address: str) -> "Failures":
        """Return the counters of an account, which need not exist, for a client at `address`."""
        # An e-mail address contains no blank, so the two keys cannot collide.
        here = (self._per_address, f"{email} {address}") if self._per_address else None
        everywhere = (self._per_account, email) if self._per_account else None
        return Failures(self.limits, here, everywhere)


@dataclass(frozen=True, slots=True)
class Failures:
    """The failed logins of one account: from one address, and in total. None means no limit."""

    limits: RateLimits
    here: tuple[Policy, str] | None
    everywhere: tuple[Policy, str] | None

    def check(self) -> None:
        """Raise TooManyFailedLogins if a limit is reached."""
        _refuse_over(self.limits.peek(*self._counters))

    def add(self) -> None:
        """Count a failed login. Raises TooManyFailedLogins if concurrent logins reached the limit in the meantime.

        Otherwise many concurrent guesses could see which of them was right: the only one that is refused.
        """
        _refuse_over(self.limits.consume(*self._counters))

    def reset(self) -> None:
        """Reset the counter of this address after a successful login; the total counter stays."""
        if self.here is not None:
            self.limits.reset(*self.here)

    @property
    def _counters(self) -> list[tuple[Policy, str]]:
        return [counter for counter in (self.here, self.everywhere) if counter is not None]


def _refuse_over(quotas: Sequence[Quota]) -> None:
    seconds = max((quota.retry_after for quota in quotas), default=0)
    if seconds:
        raise TooManyFailedLogins(f"{TooManyFailedLogins.detail} Try again in {seconds} s.", retry_after=seconds)


class Sessions(DependencyProvider):  # type: ignore[misc]  # as above
    """Gives a service its SessionPolicy; without usable keys the service does not start."""

    def setup(self) -> None:
        """Read the keys. Raises TypeError if the public key file has none of the signing keys."""
        self._private = KeyFile(config["JWT_PRIVATE_KEY_FILE"], load_signing_keys)
        self._public = KeyFile(config["JWT_PUBLIC_KEY_FILE"], load_public_keys)
        self._lifetime = timedelta(days=float(config.get("REFRESH_TOKEN_DAYS", 30)))
        if not _usable(self._private.get(), self._public.get()):
            message = "JWT_PUBLIC_KEY_FILE does not hold the public half of the key in JWT_PRIVATE_KEY_FILE"
            raise TypeError(message)

    def get_dependency(self, _worker_ctx: Any) -> SessionPolicy:
        """Return the current keys. The first signing key is one whose public half is published."""
        private, public = self._private.get(), self._public.get()
        return SessionPolicy(_usable(private, public) or private, public, self._lifetime)


def _usable(private: tuple[SigningKey, ...], public: PublicKeys) -> tuple[SigningKey, ...]:
    return tuple(key for key in private if key.kid in public)
