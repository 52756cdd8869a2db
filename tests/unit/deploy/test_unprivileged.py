import os
import subprocess

import pytest

from deploy.local import unprivileged
from deploy.local.unprivileged import IDS, ServiceUsers

NAMES = ("users", "gateway")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def test_without_root_nothing_changes(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert unprivileged.choose(NAMES, tmp_path, tmp_path) is None
    assert unprivileged.package_user("rabbitmq") is None
    unprivileged.own(tmp_path, None)


def test_services_have_different_ids_that_no_user_has(tmp_path, monkeypatch):
    taken = set()
    monkeypatch.setattr(unprivileged, "_is_taken", lambda number: number in taken)
    first = unprivileged._free_ids(NAMES, tmp_path)
    assert len({*first.values()} & {*IDS}) == len(NAMES)
    taken.add(first["gateway"])
    assert not {*unprivileged._free_ids(NAMES, tmp_path).values()} & {*first.values()}


def test_only_the_gateway_keeps_the_right_to_a_low_port():
    users = ServiceUsers({"users": 61184, "gateway": 61185}, ports=frozenset({"gateway"}))
    assert "--ambient-caps=+net_bind_service" in users.command("gateway", ["x"])
    assert not [word for word in users.command("users", ["x"]) if "caps" in word]


@as_root
def test_a_process_sees_what_it_needs_of_a_closed_folder_and_nothing_else(tmp_path, monkeypatch):
    closed = tmp_path / "closed"
    (closed / "clone").mkdir(parents=True)
    (closed / "clone/file").write_text("to read")
    (closed / "secret").write_text("x")
    (closed / "clone/private").write_text("x")
    (closed / "clone/private").chmod(0o600)
    closed.chmod(0o700)
    for folder in (tmp_path, *tmp_path.parents):  # pytest's folders are closed, too
        if not folder.stat().st_mode & 0o001:
            monkeypatch.setattr(unprivileged.sys, "prefix", "/usr")
            monkeypatch.setattr(unprivileged.sys, "base_prefix", "/usr")
    stage = tmp_path / "stage"
    stage.mkdir()
    users = ServiceUsers({"users": IDS[0]}, unprivileged._view(closed / "clone", stage))
    script = f"id -u; cat file; cat private {closed}/secret; pwd"
    done = subprocess.run(
        users.command("users", ["sh", "-c", script]), capture_output=True, text=True, check=False, timeout=60
    )
    if "mount" in done.stderr or "unshare" in done.stderr:  # some containers, and a root folder that is no mount
        pytest.skip(f"this machine does not allow mounts of its own: {done.stderr}")
    assert done.stdout == f"{IDS[0]}\nto read{closed}/clone\n"
    assert done.stderr.count("Permission denied") == 1
    assert done.stderr.count("No such file") == 1
    assert (closed / "secret").exists()  # outside the view nothing has changed
