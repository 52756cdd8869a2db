"""Runs a service with routes in a real container, without a broker or a database."""

from contextlib import contextmanager

import nameko
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from extensions.http.routing.authentication import AccessTokens
from extensions.http.routing.dispatcher import HttpServer
from extensions.rpc.container import Container


@contextmanager
def listening(service_class, folder, **settings):
    """Start the service on a free port. Yields its container, whose `address` is (host, port)."""
    key = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / "public.pem").write_bytes(key)
    own = {"JWT_PUBLIC_KEY_FILE": str(folder / "public.pem"), "WEB_SERVER_ADDRESS": "127.0.0.1:0"}
    with nameko.config.patch(own | settings):
        container = Container(service_class)
        container.start()
        container.address = ("127.0.0.1", container.shared_extensions[HttpServer].port)
        container.shared_extensions[AccessTokens].verified.caught_up = True  # there is no users service
        try:
            yield container
        finally:
            container.stop()
