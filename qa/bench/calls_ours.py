"""A call between two services with the suite's own transport; started by qa/bench/calls.py."""

import os
from typing import Protocol

from nameko.testing.services import once

from extensions.rpc.client import RpcClient
from extensions.rpc.server import rpc
from qa.bench.calls_timed import time_calls


class EchoRpc(Protocol):
    def echo(self, value: str) -> str: ...


class Registry:
    bench_echo: EchoRpc


class Echo:
    name = "bench_echo"

    @rpc(transaction=False)
    def echo(self, value):
        return value


class Caller:
    name = "bench_caller"
    services = RpcClient(Registry)

    @once
    def run(self):
        time_calls(lambda: self.services.bench_echo.echo("hello"), float(os.environ["CALL_SECONDS"]))
