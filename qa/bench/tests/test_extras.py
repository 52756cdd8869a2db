import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from qa.bench import extras, memory
from qa.bench.extras import Extras
from qa.bench.gateways import IdleCores, listeners
from qa.bench.rounds import Measured
from tests.support import eventually


def test_a_part_that_fails_is_a_problem_and_the_next_one_is_measured(monkeypatch):
    def measure(part):
        if not part._measured.problems:
            raise RuntimeError("no broker")
        part._measured.turns.append({"growth": 1.0})

    monkeypatch.setattr(extras, "PARTS", {"gateways": measure, "growth": measure})
    measured = Measured()
    Extras(None, measured, lambda _text: None).run(["gateways", "growth"])
    assert measured.problems == ["gateways: no broker"]
    assert measured.turns == [{"growth": 1.0}]


def test_the_slope_of_memory_ignores_the_first_half():
    samples = [(second, 50.0 if second < 50 else 80 + second / 3600) for second in range(100)]
    slopes, levels = memory.summary({"orders": samples}, 100)
    assert slopes["orders"] == pytest.approx(1)
    assert levels["orders"] == [50.0, pytest.approx(80, abs=0.1)]


def test_memory_is_sampled_during_the_load():
    shop = SimpleNamespace(resident=lambda: {"orders": 80.0})
    with memory.Sampler(shop, 0.01) as sampler:
        eventually(lambda: len(sampler.samples["orders"]) > 3)
    assert {mib for _, mib in sampler.samples["orders"]} == {80.0}


def test_listening_sockets_of_a_port_are_counted():
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as one:
        port = one.getsockname()[1]
        assert listeners(port) == 1
        with socket.create_server(("127.0.0.1", port), reuse_port=True), socket.create_connection(("127.0.0.1", port)):
            assert listeners(port) == 2


@pytest.mark.parametrize(("idle", "cores"), [(0, 0.0), (50, 1.0)])
def test_idle_cores_are_counted(monkeypatch, idle, cores):
    looks = iter(["cpu 0 0 0 0 0 0 0 0 9 9\n", f"cpu {100 - idle} 0 0 {idle - idle // 2} {idle // 2} 0 0 0 9 9\n"])
    monkeypatch.setattr(Path, "read_text", lambda _path: next(looks))
    monkeypatch.setattr("qa.bench.gateways.os.cpu_count", lambda: 2)
    with IdleCores() as seen:
        pass
    assert seen.cores == cores
