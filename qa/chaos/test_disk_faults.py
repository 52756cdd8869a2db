"""The small file system: it is filled completely, and removed afterwards."""

import errno
import os
from types import SimpleNamespace

import pytest

from qa.chaos.disk_faults import can_mount, configured_limit, filled, small_disk


@pytest.mark.skipif(not can_mount(), reason="mounting a file system needs root and loop devices")
def test_a_filled_disk_refuses_writes_until_it_is_freed(tmp_path):
    with small_disk(SimpleNamespace(data=tmp_path)):
        home = tmp_path / "postgres"
        with filled(home):
            with pytest.raises(OSError) as caught:
                (home / "file").write_bytes(b"x" * 100_000)
            assert caught.value.errno == errno.ENOSPC
        (home / "file").write_bytes(b"x" * 100_000)
    assert not os.path.ismount(home)
    assert not list(home.iterdir())
    assert not (tmp_path / "postgres.img").exists()


@pytest.mark.skipif(not can_mount(), reason="mounting a file system needs root and loop devices")
def test_a_disk_left_mounted_by_a_killed_run_is_replaced(tmp_path):
    left = small_disk(SimpleNamespace(data=tmp_path))
    left.__enter__()
    (tmp_path / "postgres/old").touch()
    with small_disk(SimpleNamespace(data=tmp_path)):
        assert not (tmp_path / "postgres/old").exists()
    assert not os.path.ismount(tmp_path / "postgres")


def test_the_brokers_limit_is_read_from_its_configuration():
    assert configured_limit()[0].isdigit()
