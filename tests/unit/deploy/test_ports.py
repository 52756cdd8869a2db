import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from contracts.services import PROCESSES
from deploy.local import ports
from extensions.observability import metrics


@pytest.fixture
def occupied():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_with_a_listener_is_not_free(occupied):
    assert not ports.is_free(occupied)
    assert not ports.is_free(occupied, host="0.0.0.0")


def test_a_port_with_a_sharing_listener_is_not_free():
    """Eventlet's listen() shares ports: a second gateway on one port would silently receive half of the requests."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        assert not ports.is_free(listener.getsockname()[1], host="0.0.0.0")


def test_a_port_with_connections_in_time_wait_is_free():
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        server, _ = listener.accept()
        server.close()  # the side that closes first keeps the port in TIME_WAIT
        client.close()
    assert ports.is_free(port)


def test_the_next_free_port_is_used_if_the_first_is_occupied(occupied):
    assert ports.first_free(occupied) > occupied


def test_one_process_never_gets_a_port_twice(occupied):
    first = ports.first_free(occupied)
    assert ports.first_free(occupied, taken=frozenset({first})) > first


def test_five_different_ports_are_chosen_and_remembered(tmp_path):
    chosen = ports.choose(tmp_path)
    assert set(chosen) == set(ports.NAMES)
    assert len(set(chosen.values())) == len(chosen)
    assert ports.choose(tmp_path) == chosen
    assert json.loads((tmp_path / "ports.json").read_text()) == chosen


def test_a_remembered_port_that_is_occupied_is_replaced(tmp_path, occupied):
    (tmp_path / "ports.json").write_text(json.dumps({"amqp": occupied}))
    chosen = ports.choose(tmp_path)
    assert chosen["amqp"] > occupied
    assert chosen["redis"] == ports.choose(tmp_path)["redis"]


def test_suites_that_start_at_once_choose_different_ports(tmp_path, monkeypatch):
    """None of them listens yet when the others choose. This process is several suites, and another process is one."""
    monkeypatch.setattr(ports, "CLONES", 1)
    roots = [tmp_path / str(number) for number in range(3)]
    for root in roots:
        root.mkdir()
    chosen = [port for root in roots[:2] for port in ports.choose(root).values()]
    program = (
        "import sys, pathlib; from deploy.local import ports; ports.CLONES = 1; ports.choose(pathlib.Path(sys.argv[1]))"
    )
    subprocess.run([sys.executable, "-c", program, roots[2]], check=True, timeout=60)
    chosen += json.loads((roots[2] / "ports.json").read_text()).values()
    assert len(set(chosen)) == len(chosen) == 3 * len(ports.NAMES)


def test_suites_that_start_at_once_choose_different_ports_for_their_mailboxes(tmp_path):
    """Nothing listens yet when the others choose. This process is two suites, and another process is one."""
    start = 27_000
    chosen = [ports.claim_free(start, tmp_path / name) for name in "ab" for _ in ("smtp", "page")]
    program = f"import pathlib; from deploy.local import ports; print(ports.claim_free({start}, pathlib.Path()))"
    printed = subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True).stdout
    assert len({*chosen, int(printed)}) == 5
    assert min(chosen) >= start


def test_no_two_clones_share_a_preferred_port(monkeypatch):
    found = set()
    for clone in range(ports.CLONES):
        monkeypatch.setattr(ports, "_clone", lambda _, clone=clone: clone)
        found.update(ports.preferred(Path()).values())
    assert len(found) == ports.CLONES * len(ports.NAMES)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"amqp": null}', '{"amqp": "x"}', '{"unknown": 1}'])
def test_a_damaged_file_of_remembered_ports_is_ignored(tmp_path, text):
    (tmp_path / "ports.json").write_text(text)
    assert set(ports.choose(tmp_path)) == set(ports.NAMES)


def test_preferred_ports_are_below_the_range_of_outgoing_connections(tmp_path):
    for number in range(200):
        wishes = ports.preferred(tmp_path / str(number)).values()
        assert all(15_000 < port < 32_768 for port in wishes)
        assert len(set(wishes)) == len(ports.NAMES)


def test_each_service_of_each_clone_has_its_own_metrics_ports(tmp_path):
    for number in range(200):
        root = tmp_path / str(number)
        addresses = ports.metrics_addresses(root, PROCESSES)
        assert set(addresses) == {f"{service.upper()}_METRICS_ADDRESS" for service in PROCESSES}
        found = [address for setting in addresses.values() for address in metrics.addresses(setting)]
        assert len(set(found)) == len(found) == ports.INSTANCES * len(PROCESSES)
        assert all(host == "127.0.0.1" and 22_500 < port < 32_768 for host, port in found)
        assert not {port for _, port in found} & set(ports.preferred(root).values())
