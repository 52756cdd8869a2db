"""Access tokens at the gateway: verified with public keys alone, then held against what user.updated has said."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any
from uuid import UUID

from nameko import config
from nameko.extensions import DependencyProvider, SharedExtension

from contracts.errors import ServiceUnavailable
from contracts.users import ACCESS_TOKEN_SECONDS, TokenRevoked, UserInactive, UserUpdated
from extensions.security import tokens
from extensions.security.key_file import KeyFile
from extensions.security.tokens import AccessToken, PublicKeys

MAX_CACHED_TOKENS = 10_000


class VerifiedTokens:
    """Remembers which tokens are genuine, because checking a signature costs more than all the rest of a request."""

    def __init__(self, keys: Callable[[], PublicKeys], size: int = MAX_CACHED_TOKENS) -> None:
        """`keys` returns the public keys of the moment, the same object as long as they are the same."""
        self._keys, self._size = keys, size
        self._known_by = keys()
        self._known: OrderedDict[str, AccessToken] = OrderedDict()
        self._updates: OrderedDict[Any, UserUpdated] = OrderedDict()
        self._ended: OrderedDict[UUID, float] = OrderedDict()  # sessions, with when we heard of it
        self.caught_up = True
        """False while it is unknown which accounts changed before this process was there; no token is taken then."""

    def verify(self, token: str) -> AccessToken:
        """Return what `token` says, with the roles that its user has by now.

        Raises InvalidToken, TokenRevoked, UserInactive.
        """
        if not self.caught_up:
            raise ServiceUnavailable(retry_after=1)
        keys = self._keys()
        if keys is not self._known_by:  # a key that was taken away takes its tokens with it
            self._known_by = keys
            self._known.clear()
        known = self._known.get(token)
        if known is not None and known.expires_at.timestamp() <= time.time():
            del self._known[token]
            known = None
        if known is None:
            known = self._known[token] = tokens.verify(token, keys)
            if len(self._known) > self._size:
                self._known.popitem(last=False)
        return self._as_of_now(known)

    def update(self, update: UserUpdated) -> None:
        """Take in that a user has changed, or logged out: it holds for the tokens that were issued before."""
        latest = self._updates.pop(update.user_id, update)
        self._updates[update.user_id] = max(latest, update, key=_at)
        # Tokens older than these have all expired.
        horizon = time.time() - ACCESS_TOKEN_SECONDS
        for session_id in update.ended_sessions:
            self._ended.setdefault(session_id, time.time())
        while self._ended and next(iter(self._ended.values())) < horizon:
            self._ended.popitem(last=False)
        while self._updates and next(iter(self._updates.values())).at.timestamp() < horizon:
            self._updates.popitem(last=False)

    def _as_of_now(self, token: AccessToken) -> AccessToken:
        update = self._updates.get(token.user_id)
        # issued_at is in whole seconds: a token of the very same second may be older, so it counts as such.
        if update is not None and token.issued_at > update.at:
            update = None
        if update is not None and not update.is_active:
            raise UserInactive
        if token.session_id in self._ended:
            raise TokenRevoked
        return token if update is None else replace(token, roles=update.roles)


def _at(update: UserUpdated) -> datetime:
    return update.at


class AccessTokens(SharedExtension):
    """The verified tokens of one gateway process."""

    verified: VerifiedTokens
    keys: KeyFile[PublicKeys]

    def setup(self) -> None:
        """Read the public keys."""
        self.keys = KeyFile(config["JWT_PUBLIC_KEY_FILE"], tokens.load_public_keys)
        self.verified = VerifiedTokens(self.keys.get)
        self.verified.caught_up = False

    def jwks(self) -> dict[str, Any]:
        """Return the public keys as a JSON Web Key Set."""
        return tokens.jwks(self.keys.get().values())


class TokensProvider(DependencyProvider):
    """Gives the gateway its tokens: `tokens = TokensProvider()`."""

    shared = AccessTokens()

    def get_dependency(self, _worker_ctx: Any) -> AccessTokens:
        """Return them."""
        return self.shared
