"""Access tokens at the gateway: verified with the public key alone, then held against what user.updated has said."""

import time
from collections import OrderedDict
from dataclasses import replace
from datetime import datetime
from typing import Any

from nameko import config
from nameko.extensions import DependencyProvider, SharedExtension

from contracts.errors import ServiceUnavailable
from contracts.users import ACCESS_TOKEN_SECONDS, UserInactive, UserUpdated
from extensions import tokens
from extensions.tokens import AccessToken

MAX_CACHED_TOKENS = 10_000


class VerifiedTokens:
    """Remembers which tokens are genuine, because checking a signature costs more than all the rest of a request."""

    def __init__(self, key: Any, size: int = MAX_CACHED_TOKENS) -> None:
        """`key` is the Ed25519 public key."""
        self._key, self._size = key, size
        self._known: OrderedDict[str, AccessToken] = OrderedDict()
        self._updates: OrderedDict[Any, UserUpdated] = OrderedDict()
        self.caught_up = True
        """False while it is unknown which accounts changed before this process was there; no token is taken then."""

    def verify(self, token: str) -> AccessToken:
        """Return what `token` says, with the roles that its user has by now. Raises InvalidToken, UserInactive."""
        if not self.caught_up:
            raise ServiceUnavailable(retry_after=1)
        known = self._known.get(token)
        if known is not None and known.expires_at.timestamp() <= time.time():
            del self._known[token]
            known = None
        if known is None:
            known = self._known[token] = tokens.verify(token, self._key)
            if len(self._known) > self._size:
                self._known.popitem(last=False)
        return self._as_of_now(known)

    def update(self, update: UserUpdated) -> None:
        """Take in that a user has changed: it holds for the tokens that were issued before."""
        latest = self._updates.pop(update.user_id, update)
        self._updates[update.user_id] = max(latest, update, key=_at)
        # Tokens older than these have all expired.
        horizon = time.time() - ACCESS_TOKEN_SECONDS
        while self._updates and next(iter(self._updates.values())).at.timestamp() < horizon:
            self._updates.popitem(last=False)

    def _as_of_now(self, token: AccessToken) -> AccessToken:
        update = self._updates.get(token.user_id)
        # issued_at is in whole seconds: a token of the very same second may be older, so it counts as such.
        if update is None or token.issued_at > update.at:
            return token
        if not update.is_active:
            raise UserInactive
        return replace(token, roles=update.roles)


def _at(update: UserUpdated) -> datetime:
    return update.at


class AccessTokens(SharedExtension):
    """The verified tokens of one gateway process."""

    verified: VerifiedTokens
    key: Any

    def setup(self) -> None:
        """Read the public key."""
        self.key = tokens.load_public_key(config["JWT_PUBLIC_KEY_FILE"])
        self.verified = VerifiedTokens(self.key)
        self.verified.caught_up = False

    def jwks(self) -> dict[str, Any]:
        """Return the public key as a JSON Web Key Set."""
        return tokens.jwks(self.key)


class TokensProvider(DependencyProvider):
    """Gives the gateway its tokens: `tokens = TokensProvider()`."""

    shared = AccessTokens()

    def get_dependency(self, _worker_ctx: Any) -> AccessTokens:
        """Return them."""
        return self.shared
