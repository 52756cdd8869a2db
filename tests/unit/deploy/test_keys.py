import os

import jwt
import pytest

from deploy import keys
from extensions.security.access_tokens import load_public_keys
from users.token_issuer import load_signing_keys


def test_a_key_pair_is_created_once_and_signs_tokens(tmp_path):
    private, public = tmp_path / "keys" / "private.pem", tmp_path / "keys" / "public.pem"
    assert keys.ensure(private, public)
    before = private.read_bytes(), public.read_bytes()
    assert before[0].startswith(b"-----BEGIN PRIVATE KEY-----")
    assert before[1].startswith(b"-----BEGIN PUBLIC KEY-----")
    token = jwt.encode({"sub": "1"}, before[0], algorithm="EdDSA")
    assert jwt.decode(token, before[1], algorithms=["EdDSA"]) == {"sub": "1"}

    assert not keys.ensure(private, public)
    assert (private.read_bytes(), public.read_bytes()) == before


def test_only_the_owner_can_read_the_private_key(tmp_path):
    keys.ensure(tmp_path / "private.pem", tmp_path / "public.pem")
    assert (tmp_path / "private.pem").stat().st_mode & 0o777 == 0o600


def test_a_lost_public_key_is_derived_from_the_private_key(tmp_path):
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    keys.ensure(private, public)
    before = public.read_bytes()
    public.unlink()
    assert not keys.ensure(private, public)
    assert public.read_bytes() == before


class TestRotation:
    def test_the_next_key_is_published_before_it_signs_and_the_old_key_stays_published(self, tmp_path):
        private, public = tmp_path / "private.pem", tmp_path / "public.pem"
        keys.ensure(private, public)
        (old,) = load_public_keys(public)

        keys.announce(private, public)
        keys.announce(private, public)  # repeating a step changes nothing
        assert len(load_public_keys(public)) == 2
        assert [key.kid for key in load_signing_keys(private)] == [old]

        keys.switch(private)
        (new,) = load_public_keys(public).keys() - {old}
        assert [key.kid for key in load_signing_keys(private)] == [new, old]
        with pytest.raises(FileNotFoundError):
            keys.switch(private)

        keys.retire(private, public)
        assert list(load_public_keys(public)) == [new]
        assert [key.kid for key in load_signing_keys(private)] == [new]
        assert sorted(path.name for path in tmp_path.iterdir()) == ["private.pem", "public.pem"]
        assert private.stat().st_mode & 0o777 == 0o600

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
    def test_a_file_that_root_replaces_keeps_its_owner(self, tmp_path):
        private, public = tmp_path / "private.pem", tmp_path / "public.pem"
        keys.ensure(private, public)
        os.chown(private, 61184, 61184)  # the user of the users service in `make run`
        keys.announce(private, public)
        keys.switch(private)
        keys.retire(private, public)
        assert (private.stat().st_uid, public.stat().st_uid) == (61184, 0)

    def test_without_an_announced_key_nothing_happens(self, tmp_path):
        private, public = tmp_path / "private.pem", tmp_path / "public.pem"
        keys.ensure(private, public)
        before = private.read_bytes()
        with pytest.raises(FileNotFoundError):
            keys.switch(private)
        assert private.read_bytes() == before
