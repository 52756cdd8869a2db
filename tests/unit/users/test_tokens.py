import base64
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from contracts.users import InvalidToken, TokenExpired
from extensions.security import access_tokens as public_tokens
from users import token_issuer

KEY = token_issuer.SigningKey.of(Ed25519PrivateKey.generate())
KEYS = {KEY.kid: KEY.public}
USER = UUID("01900000-0000-7000-8000-000000000001")
LONG_AGO = datetime.now(UTC) - timedelta(seconds=901)
TOKEN_ID = UUID("01900000-0000-7000-8000-000000000002")


def access_token(key=KEY, issued_at=None, **overrides):
    arguments = {
        "user_id": USER,
        "roles": ["customer"],
        "issued_at": issued_at or datetime.now(UTC),
        "token_id": TOKEN_ID,
    }
    return token_issuer.issue(key, **(arguments | overrides))


def forged(claims=(), headers=(), without=None, key=KEY.private, algorithm="EdDSA"):
    now = int(datetime.now(UTC).timestamp())
    genuine = {
        "iss": "order-suite",
        "aud": "order-suite-api",
        "sub": str(USER),
        "roles": ["customer"],
        "iat": now,
        "exp": now + 900,
        "jti": "1",
    }
    body = {name: value for name, value in (genuine | dict(claims)).items() if name != without}
    return jwt.encode(body, key, algorithm=algorithm, headers={"typ": "at+jwt", "kid": KEY.kid} | dict(headers))


class TestAccessTokens:
    def test_contains_the_user_the_roles_and_the_expiry(self):
        issued = datetime(2030, 1, 2, 3, 4, 5, 678, tzinfo=UTC)
        text = access_token(issued_at=issued, roles=["customer", "admin"])
        token = public_tokens.verify(text, KEYS)
        assert (token.user_id, token.roles) == (USER, ("customer", "admin"))
        assert jwt.decode(text, options={"verify_signature": False})["jti"] == str(TOKEN_ID)
        assert token.issued_at == issued.replace(microsecond=0)
        assert token.expires_at - token.issued_at == timedelta(minutes=15)

    def test_header_names_key_and_type(self):
        header = jwt.get_unverified_header(access_token())
        assert header == {"alg": "EdDSA", "typ": "at+jwt", "kid": public_tokens.key_id(KEY.public)}

    def test_the_same_claims_give_the_same_bytes(self):
        issued = datetime.now(UTC)
        assert access_token(issued_at=issued) == access_token(issued_at=issued)

    def test_the_forging_helper_makes_a_valid_token_by_default(self):
        assert public_tokens.verify(forged(), KEYS).user_id == USER

    @pytest.mark.parametrize("claim", ["iss", "aud", "sub", "roles", "iat", "exp", "jti"])
    def test_every_claim_is_required(self, claim):
        with pytest.raises(InvalidToken):
            public_tokens.verify(forged(without=claim), KEYS)

    @pytest.mark.parametrize(
        "claims",
        [
            {"iss": "someone-else"},
            {"aud": "another-api"},
            {"exp": 1},
            {"exp": "soon"},
            {"iat": "now"},
            {"iat": 10**20},
            {"sub": "42"},
            {"roles": ["customer", "root"]},
            {"roles": None},
            {"roles": [{}]},
        ],
    )
    def test_refuses_claims(self, claims):
        with pytest.raises(InvalidToken):
            public_tokens.verify(forged(claims), KEYS)

    @pytest.mark.parametrize("typ", ["JWT", "", None, 7])
    def test_refuses_tokens_of_another_type(self, typ):
        with pytest.raises(InvalidToken):
            public_tokens.verify(
                forged(headers={"typ": typ}) if typ != 7 else raw({"alg": "EdDSA", "typ": 7, "kid": KEY.kid}), KEYS
            )

    def test_refuses_an_expired_token(self):
        with pytest.raises(InvalidToken):
            public_tokens.verify(access_token(issued_at=LONG_AGO), KEYS)

    def test_reports_expiry_only_for_a_genuine_token(self):
        with pytest.raises(TokenExpired):
            public_tokens.verify(access_token(issued_at=LONG_AGO), KEYS)
        header, payload, signature = access_token(issued_at=LONG_AGO).split(".")
        stranger = token_issuer.SigningKey.of(Ed25519PrivateKey.generate())
        for forged_one in (
            access_token(key=stranger, issued_at=LONG_AGO),
            f"{header}.{payload}.{signature[:-2]}{'AA' if signature[-2:] != 'AA' else 'BA'}",
            f"{header}.{payload}.",
            access_token().rpartition(".")[0] + f".{signature}",
        ):
            with pytest.raises(InvalidToken) as refused:
                public_tokens.verify(forged_one, KEYS)
            assert type(refused.value) is InvalidToken

    def test_accepts_a_token_from_a_machine_whose_clock_is_ahead(self):
        assert public_tokens.verify(access_token(issued_at=datetime.now(UTC) + timedelta(seconds=5)), KEYS)

    def test_refuses_another_key(self):
        with pytest.raises(InvalidToken):
            public_tokens.verify(access_token(key=token_issuer.SigningKey.of(Ed25519PrivateKey.generate())), KEYS)

    def test_refuses_other_algorithms(self):
        public = KEY.public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        for token in (
            forged(key=public, algorithm="HS256"),
            forged(key=ec.generate_private_key(ec.SECP256R1()), algorithm="ES256"),
            forged(key=None, algorithm="none"),
        ):
            with pytest.raises(InvalidToken):
                public_tokens.verify(token, KEYS)

    def test_refuses_a_changed_payload(self):
        header, payload, signature = access_token().split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
        changed = encode(json.dumps(claims | {"roles": ["admin"]}))
        with pytest.raises(InvalidToken):
            public_tokens.verify(f"{header}.{changed}.{signature}", KEYS)

    @pytest.mark.parametrize("text", ["", "x", "a.b.c", "..", "\ud800", "é.é.é", "." * 4000])
    def test_refuses_text_that_is_not_a_token(self, text):
        with pytest.raises(InvalidToken):
            public_tokens.verify(text, KEYS)

    def test_refuses_json_that_is_nested_too_deep(self):
        header = encode("[" * 100_000)
        with pytest.raises(InvalidToken):
            public_tokens.verify(f"{header}.{header}.{header}", KEYS)


def encode(text):
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def raw(header):
    signed = f"{encode(json.dumps(header))}.{forged().split('.')[1]}"
    signature = base64.urlsafe_b64encode(KEY.private.sign(signed.encode())).decode().rstrip("=")
    return f"{signed}.{signature}"


class TestPublicKey:
    # RFC 8037, appendix A.2 and A.3
    X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"

    def test_jwks_matches_the_example_of_the_rfc(self):
        key = Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(self.X + "="))
        assert public_tokens.jwks([key]) == {
            "keys": [
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "x": self.X,
                    "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
                    "use": "sig",
                    "alg": "EdDSA",
                }
            ]
        }

    def test_jwks_verifies_our_tokens(self):
        key = jwt.PyJWKSet.from_dict(public_tokens.jwks([KEY.public]))[KEY.kid]
        assert jwt.decode(access_token(), key, audience="order-suite-api", algorithms=["EdDSA"])["sub"] == str(USER)

    def test_keys_are_read_from_pem_files(self, tmp_path):
        private, public = tmp_path / "private.pem", tmp_path / "public.pem"
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        private.write_bytes(KEY.private.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        public.write_bytes(KEY.public.public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo))
        token = access_token(key=token_issuer.load_signing_keys(private)[0])
        assert public_tokens.verify(token, public_tokens.load_public_keys(public)).user_id == USER

    def test_keys_of_other_types_are_refused(self, tmp_path):
        key = ec.generate_private_key(ec.SECP256R1())
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        (tmp_path / "private").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
        public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / "public").write_bytes(public)
        with pytest.raises(TypeError, match="JWT_PRIVATE_KEY_FILE"):
            token_issuer.load_signing_keys(tmp_path / "private")
        with pytest.raises(TypeError, match="JWT_PUBLIC_KEY_FILE"):
            public_tokens.load_public_keys(tmp_path / "public")


class TestRefreshTokens:
    def test_has_256_random_bits(self):
        made = {token_issuer.new_refresh_token() for _ in range(100)}
        assert len(made) == 100
        assert {len(base64.urlsafe_b64decode(token + "=")) for token in made} == {32}

    def test_a_successor_depends_only_on_both_halves(self):
        token, salt = token_issuer.new_refresh_token(), token_issuer.new_salt()
        assert token_issuer.successor(token, salt) == token_issuer.successor(token, salt)
        assert token_issuer.successor(token, token_issuer.new_salt()) != token_issuer.successor(token, salt)
        assert token_issuer.successor(token_issuer.new_refresh_token(), salt) != token_issuer.successor(token, salt)
        assert len(token_issuer.successor(token, salt)) == len(token)
