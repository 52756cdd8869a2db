"""The key pair that access tokens are signed with: made once, Ed25519, PEM. `python -m deploy.keys`."""

import os
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)


def ensure(private: Path, public: Path) -> bool:
    """Make the pair if it is not there; True if it was made. The public file follows from the private one.

    Each file appears whole or not at all: a service that starts meanwhile never reads half a key.
    """
    made = not private.exists()
    if made:
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        _write(private, pem, mode=0o600)
    if made or not public.exists():
        loaded = load_pem_private_key(private.read_bytes(), password=None)
        pem = loaded.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        _write(public, pem, mode=0o644)
    return made


def _write(path: Path, content: bytes, *, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
    unfinished.replace(path)


def main() -> int:
    """Make the pair where config.yml says it is."""
    from deploy.settings import load

    settings = load()
    private, public = Path(settings["JWT_PRIVATE_KEY_FILE"]), Path(settings["JWT_PUBLIC_KEY_FILE"])
    print(f"{'made' if ensure(private, public) else 'already there'}: {private} and {public}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
