"""Finds secrets in logs: passwords, tokens, keys, URLs with a password."""

import re

SHAPES = {
    "a signed token": rb"eyJ[\w-]{10,}\.[\w-]{10,}",
    "a hash of a password": rb"\$argon2",
    "a private key": rb"PRIVATE KEY-----",
    "a URL with a password": rb"\w://[^/\s:@]*:[^/\s@*]+@",
    "an Authorization header": rb"Bearer [\w.-]{8,}",
}


def secrets_in(folder, *known):
    """The lines of the logs in `folder` that contain a secret: one of these shapes, or one of the `known` texts."""
    shapes = SHAPES | {f"the known secret of {len(text)} characters": re.escape(text.encode()) for text in known}
    return [
        f"{title} in {log.name}: {line.decode(errors='replace')}"
        for log in sorted(folder.glob("*.log"))
        for line in log.read_bytes().splitlines()
        for title, shape in shapes.items()
        if re.search(shape, line)
    ]
