import jwt

from deploy import keys


def test_a_pair_is_made_once_and_signs_tokens(tmp_path):
    private, public = tmp_path / "keys" / "private.pem", tmp_path / "keys" / "public.pem"
    assert keys.ensure(private, public)
    before = private.read_bytes(), public.read_bytes()
    assert before[0].startswith(b"-----BEGIN PRIVATE KEY-----")
    assert before[1].startswith(b"-----BEGIN PUBLIC KEY-----")
    token = jwt.encode({"sub": "1"}, before[0], algorithm="EdDSA")
    assert jwt.decode(token, before[1], algorithms=["EdDSA"]) == {"sub": "1"}

    assert not keys.ensure(private, public)
    assert (private.read_bytes(), public.read_bytes()) == before


def test_the_private_key_is_for_its_owner_only(tmp_path):
    keys.ensure(tmp_path / "private.pem", tmp_path / "public.pem")
    assert (tmp_path / "private.pem").stat().st_mode & 0o777 == 0o600


def test_a_lost_public_key_is_made_again_from_the_private_one(tmp_path):
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    keys.ensure(private, public)
    before = public.read_bytes()
    public.unlink()
    assert not keys.ensure(private, public)
    assert public.read_bytes() == before
