"""Forged access tokens: each differs from a valid token, and none may be accepted.

for kind, token in mutations(valid_token, public_key, count=10_000, seed=1): ...
"""

import base64
import hashlib
import hmac
import itertools
import json
import random

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
KIDS = (
    "../../../../dev/null", "/etc/passwd", "file:///dev/null", "' OR '1'='1", "x' UNION SELECT 'key'--", "", "\x00",
    "0", None, 0, True, [], {}, ["a"], {"a": 1}, "a" * 5000, "ключ", "\u202e", "http://attacker.example/key", "$(id)",
    "${jndi:x}",
)  # fmt: skip
ALGORITHMS = (
    "none", "None", "NONE", "nOnE", "", "HS256", "HS384", "HS512", "RS256", "ES256", "PS256", "Ed25519", "eddsa",
    "EDDSA", "EdDSA ", None, 0, [], ["EdDSA"], {"EdDSA": 1},
)  # fmt: skip
TYPES = ("JWT", "jwt", "rt+jwt", "application/at+jwt", "AT+JWT", "at+jwt ", "", None, 7, [], {})
CLAIMS = {
    "sub": ("00000000-0000-0000-0000-000000000000", "admin", "", None, 1, 1e400, [], {}, "\ud800", "' OR 1=1--"),
    "roles": (["customer", "admin"], ["admin"], "admin", ["root"], [], None, 1, {"admin": True}, [["admin"]]),
    "exp": (2**31, 2**63, 10**400, 1e308, float("inf"), float("nan"), -1, "9999999999", None, True, [], {}, 0.5),
    "iat": (0, -1, 2**63, 10**400, float("nan"), float("-inf"), "now", None, [], False),
    "iss": ("https://attacker.example", "", None, ["order-suite"], 1, "Order-Suite"),
    "aud": ("another", "", None, [], ["another"], 1, {}),
    "jti": ("other", "", None, 1, [], {}),
    "sid": ("00000000-0000-0000-0000-000000000000", "", None, 1, []),
    "nbf": (2**40, "x", None, float("nan")),
    "admin": (True,),
}  # fmt: skip


def segment(value):
    """The base64url encoding of a text, of bytes, or of the JSON of any other value."""
    data = json.dumps(value) if not isinstance(value, str | bytes) else value
    data = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decoded(part):
    """The JSON in a segment."""
    return json.loads(base64.urlsafe_b64decode(part + "=="))


class Mutator:
    """Makes mutations of one valid token. It knows the public key and its own keys, but not the signing key."""

    def __init__(self, token, public_key, seed):
        self.token, self.chance = token, random.Random(seed)
        self.parts = token.split(".")
        self.header, self.claims = decoded(self.parts[0]), decoded(self.parts[1])
        self.own = Ed25519PrivateKey.generate()
        raw = public_key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        pem = public_key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        self.secrets = [
            raw,
            pem,
            pem.strip(),
            base64.urlsafe_b64encode(raw),
            raw.hex().encode(),
            b"",
            b"\x00",
            b"secret",
        ]
        self.kinds = [getattr(self, name) for name in dir(type(self)) if name.startswith("by_")]

    def pick(self, choices):
        return self.chance.choice(choices)

    def signed(self, header, payload, signature=None):
        """A token signed with the attacker's key, or with the given signature."""
        signing_input = f"{header if isinstance(header, str) else segment(header)}.{payload}"
        own = segment(self.own.sign(signing_input.encode()))
        return f"{signing_input}.{own if signature is None else signature}"

    def payload(self):
        return self.parts[1] if self.chance.random() < 0.5 else segment(self.edited_claims())

    def edited_claims(self):
        name = self.pick(list(CLAIMS))
        return {**self.claims, name: self.pick(CLAIMS[name]), "n": self.chance.getrandbits(32)}

    def some_signature(self):
        return self.pick(
            ["", self.parts[2], None, segment(self.chance.randbytes(64)), segment(bytes(64)), "A", "." * 3]
        )

    # Each method below returns one mutation.

    def by_algorithm(self):
        header = {**self.header, "alg": self.pick(ALGORITHMS)}
        return self.signed(header, self.payload(), self.some_signature())

    def by_the_public_key_as_a_secret(self):
        name, digest = self.pick([("HS256", hashlib.sha256), ("HS384", hashlib.sha384), ("HS512", hashlib.sha512)])
        signing_input = f"{segment({**self.header, 'alg': name})}.{self.payload()}"
        return f"{signing_input}.{segment(hmac.digest(self.pick(self.secrets), signing_input.encode(), digest))}"

    def by_kid(self):
        return self.signed({**self.header, "kid": self.pick(KIDS)}, self.payload(), self.some_signature())

    def by_the_attackers_key(self):
        public = self.own.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": segment(public), "kid": self.header["kid"]}
        extra = self.pick([
            {"jwk": jwk}, {"jku": "https://attacker.example/jwks.json"}, {"x5u": "https://attacker.example/x.pem"},
            {"x5c": [base64.b64encode(public).decode()]}, {"x5t": segment(public)}, {"jwk": jwk, "kid": "own"}, {},
            {"crit": ["exp"]}, {"crit": ["b64"], "b64": False}, {"b64": False}, {"zip": "DEF"},
            {"enc": "A128GCM"}, {"cty": "JWT"},
        ])  # fmt: skip
        return self.signed({**self.header, **extra}, self.payload(), self.pick([None, None, self.parts[2]]))

    def by_type(self):
        return self.signed({**self.header, "typ": self.pick(TYPES)}, self.payload(), self.some_signature())

    def by_claims(self):
        return self.signed(self.parts[0], segment(self.edited_claims()), self.pick([self.parts[2], None]))

    def by_duplicated_claims(self):
        body = json.dumps(self.claims)
        first = f'{{"roles": ["admin"], "x": {self.chance.getrandbits(32)}, '
        doubled = self.pick(
            [first + body[1:], body[:-1] + f', "roles": ["admin"], "x": {self.chance.getrandbits(32)}}}']
        )
        return self.signed(self.parts[0], segment(doubled), self.pick([self.parts[2], None]))

    def by_doubled_header(self):
        doubled = json.dumps(self.header)[:-1] + f', "alg": "none", "x": {self.chance.getrandbits(32)}}}'
        return self.signed(segment(doubled), self.payload(), self.pick(["", self.parts[2]]))

    def by_truncation(self):
        if self.chance.random() < 0.5:
            return self.token[: self.chance.randrange(len(self.token))]
        return self.token[self.chance.randrange(1, len(self.token)) :]

    def by_one_character(self):
        at = self.chance.randrange(len(self.token))
        return self.token[:at] + self.pick(ALPHABET + ".=+/ %\n\x00é") + self.token[at + 1 :]

    def by_one_bit(self):
        number = self.chance.randrange(3)
        data = bytearray(base64.urlsafe_b64decode(self.parts[number] + "=="))
        data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
        return ".".join([*self.parts[:number], segment(bytes(data)), *self.parts[number + 1 :]])

    def by_another_spelling_of_the_same_bytes(self):
        parts = list(self.parts)
        number = self.pick([0, 1, 2, 2, 2])
        part = parts[number]
        spare_bits = {0: 0, 2: 4, 3: 2}[len(part) % 4]  # of the last character, which decode to nothing
        last = ALPHABET.index(part[-1])
        at = self.chance.randrange(len(part) + 1)
        parts[number] = self.pick([
            part + "=" * self.chance.randrange(1, 5),
            part[:at] + self.pick("\n\r\t !~.,:;$%&*()\x00\x7f") * self.chance.randrange(1, 4) + part[at:],
            part[:-1] + ALPHABET[last ^ self.chance.randrange(1 << spare_bits)],
            part.replace("-", "+").replace("_", "/"),
            part + "=" * (-len(part) % 4) + segment(self.chance.randbytes(3)),
        ])  # fmt: skip
        return ".".join(parts)

    def by_adding_the_order_to_s(self):
        """The malleability of Ed25519: S + L is a valid signature if the verifier does not check the range of S."""
        order = 2**252 + 27742317777372353535851937790883648493
        data = base64.urlsafe_b64decode(self.parts[2] + "==")
        s = int.from_bytes(data[32:], "little") + order * self.chance.randrange(1, 15)
        other = data[:32] + s.to_bytes(33, "little")[:32]
        return f"{self.parts[0]}.{self.parts[1]}.{segment(other)}"

    def by_segments(self):
        parts = [*self.parts, "", "e30", self.parts[0]]
        return ".".join(self.pick(parts) for _ in range(self.chance.randrange(1, 7)))

    def by_bombs(self):
        depth = self.chance.randrange(100, 800)
        bomb = self.pick([
            "[" * depth, '{"a":' * depth, "[" * depth + "]" * depth, "9" * depth, f"1e{depth}", "-",
            '"' + "\\ud800" * (depth // 6) + '"', f'{{"exp": {"9" * depth}}}', f'{{"exp": 1e{depth}}}',
            '{"roles": [' + '"admin",' * (depth // 8) + '"admin"]}', "\x00" * depth, "null", "true", "[]",
            "NaN", "-Infinity",
        ])  # fmt: skip
        number = self.chance.randrange(2)
        header, payload = (segment(bomb), self.parts[1]) if number else (self.parts[0], segment(bomb))
        return self.signed(header, payload, self.some_signature())

    def by_unicode(self):
        lookalikes = {".": "\uff0e", "e": "\u0435", "A": "\uff21", "-": "\u2010", "_": "\uff3f"}
        at = self.chance.randrange(len(self.token))
        odd = lookalikes.get(self.token[at], self.pick(["\u200b", "\u202e", "\ufeff", "\U0001d538", "é"]))
        return self.token[:at] + odd + self.token[at + self.chance.randrange(2) :]

    def by_whitespace(self):
        odd = self.pick([" ", "\t", "\n", "\r\n", "\x0b", "\x00", "\u00a0", "\u2028"]) * self.chance.randrange(1, 4)
        return self.pick([odd + self.token, self.token + odd, self.token.replace(".", "." + odd, 1)])

    def by_being_a_refresh_token(self):
        return segment(self.chance.randbytes(32))

    def by_being_no_token(self):
        return self.pick(["Bearer ", "null", "undefined", "[object Object]", "{}", "a.b.c", "..", "...."]) + segment(
            self.chance.randbytes(self.chance.randrange(24))
        )


def foreign_tokens(token):
    """The same claims, correctly signed with other keys."""
    header, claims = (decoded(part) for part in token.split(".")[:2])
    headers = {"typ": header["typ"], "kid": header["kid"]}
    for key, algorithm in (
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (rsa.generate_private_key(65537, 2048), "RS256"),
        (Ed25519PrivateKey.generate(), "EdDSA"),
    ):
        yield jwt.encode(claims, key, algorithm=algorithm, headers=headers)


def mutations(token, public_key, count, seed):
    """Yield `count` different (kind, mutation) of `token`."""
    mutator, seen = Mutator(token, public_key, seed), {token}
    for foreign in foreign_tokens(token):
        seen.add(foreign)
        yield "foreign key", foreign
    for make in itertools.islice(itertools.cycle(mutator.kinds), 50 * count):
        if len(seen) > count:
            return
        mutation = make()
        if mutation not in seen:
            seen.add(mutation)
            yield make.__name__, mutation
