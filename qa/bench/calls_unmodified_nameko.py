"""A call between two services with unmodified Nameko; started by qa/bench/calls.py."""

import os

from nameko.rpc import ServiceRpc, rpc
from nameko.testing.services import once

from qa.bench.calls_timed import time_calls


class Echo:
    name = "bench_unmodified_echo"

    @rpc
    def echo(self, value):
        return value


class Caller:
    name = "bench_unmodified_caller"
    services = ServiceRpc("bench_unmodified_echo")

    @once
    def run(self):
        time_calls(lambda: self.services.echo("hello"), float(os.environ["CALL_SECONDS"]))
