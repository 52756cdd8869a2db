"""Access tokens at the gateway: verified with public keys, then compared with later changes of the account."""

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
from extensions.security import access_tokens
from extensions.security.access_tokens import AccessToken, PublicKeys
from extensions.security.key_reloader import KeyFile

MAX_CACHED_TOKENS = 10_000


class VerifiedTokens:
    """Caches verified tokens, because verifying a signature costs more than the rest of a request."""

    def __init__(self, keys: Callable[[], PublicKeys], size: int = MAX_CACHED_TOKENS) -> None:
        """`keys` returns the current public keys, and the same object until they change."""
        self._keys, self._size = keys, size
        self._verified_with = keys()
        self._verified: OrderedDict[str, AccessToken] = OrderedDict()
        self._updates: OrderedDict[Any, UserUpdated] = OrderedDict()
        self._ended: OrderedDict[UUID, float] = OrderedDict()  # ended sessions, with the time of the update
        self.caught_up = True
        """False until the account changes before this process started are known. No token is accepted until then."""

    def verify(self, token: str) -> AccessToken:
        """Return the claims of `token`, with the current roles of its user.

        Raises InvalidToken, TokenRevoked, UserInactive, and ServiceUnavailable until `caught_up`.
        """
        if not self.caught_up:
            raise ServiceUnavailable(retry_after=1)
        keys = self._keys()
        if keys is not self._verified_with:  # a key may have been removed: then its tokens are no longer valid
            self._verified_with = keys
            self._verified.clear()
        verified = self._verified.get(token)
        if verified is not None and verified.expires_at.timestamp() <= time.time():
            del self._verified[token]
            verified = None
        if verified is None:
            verified = self._verified[token] = access_tokens.verify(token, keys)
            if len(self._verified) > self._size:
                self._verified.popitem(last=False)
        return self.current(verified)

    def update(self, update: UserUpdated) -> None:
        """Apply a change of an account, or the end of a session, to the tokens that were issued before it."""
        latest = self._updates.pop(update.user_id, update)
        self._updates[update.user_id] = max(latest, update, key=_at)
        # Tokens issued before the horizon have all expired.
        horizon = time.time() - ACCESS_TOKEN_SECONDS
        for session_id in update.ended_sessions:
            self._ended.setdefault(session_id, time.time())
        while self._ended and next(iter(self._ended.values())) < horizon:
            self._ended.popitem(last=False)
        while self._updates and next(iter(self._updates.values())).at.timestamp() < horizon:
            self._updates.popitem(last=False)

    def current(self, token: AccessToken) -> AccessToken:
        """Return a verified token with the current roles of its user. Raises TokenRevoked, UserInactive."""
        update = self._updates.get(token.user_id)
        # issued_at is in whole seconds, so a token of the same second may be older than the update: apply it.
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
        self.keys = KeyFile(config["JWT_PUBLIC_KEY_FILE"], access_tokens.load_public_keys)
        self.verified = VerifiedTokens(self.keys.get)
        self.verified.caught_up = False

    def jwks(self) -> dict[str, Any]:
        """Return the public keys as a JSON Web Key Set."""
        return access_tokens.jwks(self.keys.get().values())


class AccessTokensProvider(DependencyProvider):
    """Gives a service its access tokens: `tokens = AccessTokensProvider()`."""

    shared = AccessTokens()

    def get_dependency(self, _worker_ctx: Any) -> AccessTokens:
        """Return the shared AccessTokens."""
        return self.shared
