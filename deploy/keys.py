"""The keys that sign access tokens: Ed25519, PEM. `python -m deploy.keys` creates the pair if it does not exist.

They can be rotated while the suite runs, in three steps: `python -m deploy.keys announce`, `switch`, `retire`. After a
theft the last one is `retire --compromised`, which also ends all sessions (docs/security/attacks.md).
"""

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import sqlalchemy
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from sqlalchemy.orm import Session

from extensions.runtime.addresses import database_url
from extensions.security.access_tokens import load_public_keys
from users import queries, use_cases
from users.token_issuer import load_signing_keys


def ensure(private: Path, public: Path) -> bool:
    """Create the pair if it does not exist; True if it was created. The public file is derived from the private one.

    Each file is written atomically: a service that starts at the same time never reads a part of a key.
    """
    made = not private.exists()
    if made:
        _write_private(private, [Ed25519PrivateKey.generate()])
    if made or not public.exists():
        _write_public(public, [key.public for key in load_signing_keys(private)])
    return made


def announce(private: Path, public: Path) -> None:
    """Create the next key, and publish its public part, so that services know it before tokens are signed with it."""
    following = _next_of(private)
    if not following.exists():
        _write_private(following, [Ed25519PrivateKey.generate()])
    (coming,) = load_signing_keys(following)
    _write_public(public, ({coming.kid: coming.public} | dict(load_public_keys(public))).values())


def switch(private: Path) -> None:
    """Sign with the announced key from now on. Raises FileNotFoundError if there is none."""
    coming = load_signing_keys(_next_of(private))
    _write_private(private, [key.private for key in (*coming, *load_signing_keys(private))])
    _next_of(private).unlink()


def retire(private: Path, public: Path) -> None:
    """Remove all keys except the one that signs. Tokens of the other keys are no longer accepted."""
    signing = load_signing_keys(private)[0]
    _write_public(public, [signing.public])
    _write_private(private, [signing.private])


def end_all_sessions(users_database: str) -> int:
    """End every session that began before now, in short transactions; returns their number."""
    engine = sqlalchemy.create_engine(
        users_database,
        poolclass=sqlalchemy.NullPool,
        connect_args={"connect_timeout": 5, "options": "-c lock_timeout=30s -c statement_timeout=60s"},
    )
    with Session(engine) as session, session.begin():
        now = queries.now(session)
    total = 0
    while True:
        with Session(engine) as session, session.begin():
            ended = use_cases.end_sessions(session, now)
        total += ended
        if ended < use_cases.MAX_ENDED:
            return total


def _next_of(private: Path) -> Path:
    return private.with_name(f"{private.name}.next")


def _write_private(path: Path, keys: Iterable[Ed25519PrivateKey]) -> None:
    pems = [key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()) for key in keys]
    _write(path, b"".join(pems), mode=0o600)


def _write_public(path: Path, keys: Iterable[Ed25519PublicKey]) -> None:
    pems = [key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in keys]
    _write(path, b"".join(pems), mode=0o644)


def _write(path: Path, content: bytes, *, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
        if os.geteuid() == 0 and path.exists():  # the service that reads it may have a user of its own
            before = path.stat()
            os.fchown(file.fileno(), before.st_uid, before.st_gid)
    unfinished.replace(path)


def main() -> int:
    """Create the pair of config.yml, or run the step of a rotation that the command line names."""
    from deploy.config_file import load

    settings = load()
    private, public = Path(settings["JWT_PRIVATE_KEY_FILE"]), Path(settings["JWT_PUBLIC_KEY_FILE"])
    match sys.argv[1:]:
        case []:
            print(f"{'created' if ensure(private, public) else 'they exist already'}: {private} and {public}")
        case ["announce"]:
            announce(private, public)
            print("The next key is announced. Switch in ten minutes, when all services have read it.")
        case ["switch"]:
            switch(private)
            print("The next key signs. Retire the old one in a day, when its last tokens have expired.")
        case ["retire"]:
            retire(private, public)
            print("Only the signing key is left.")
        case ["retire", "--compromised"]:
            retire(private, public)
            ended = end_all_sessions(database_url(settings, "users"))
            print(f"Only the signing key is left, and {ended} sessions have ended: everybody logs in again.")
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
