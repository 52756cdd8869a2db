"""The same call by the suite's own transport; tests/bench/calls.py runs both."""

import os

from nameko.testing.services import once

from extensions.rpc import rpc
from extensions.rpc_client import RpcClient
from tests.bench.calls_timed import time_calls


class Echo:
    name = "bench_echo"

    @rpc(transaction=False)
    def echo(self, value):
        return value


class Caller:
    name = "bench_caller"
    services = RpcClient()

    @once
    def run(self):
        time_calls(lambda: self.services.bench_echo.echo("hello"), float(os.environ["CALL_SECONDS"]))
