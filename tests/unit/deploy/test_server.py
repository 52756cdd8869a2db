"""A server that ends while it starts is launched again, if that helps with this server."""

import sys

import pytest

from deploy.local.process import StartError
from deploy.local.server import Server

# Ends until it was started `sys.argv[2]` times, and then becomes ready.
PROGRAM = """
import pathlib, sys, time
folder, needed = pathlib.Path(sys.argv[1]), int(sys.argv[2])
with (folder / "starts").open("a") as starts:
    starts.write("x")
if len((folder / "starts").read_text()) < needed:
    sys.exit("no_epmd_port")
(folder / "ready").touch()
time.sleep(60)
"""


@pytest.fixture
def server_that_needs(tmp_path):
    """A function that makes a server which becomes ready at its `number`th start."""

    class Flaky(Server):
        name, tries, needed = "flaky", 3, 1

        def command(self):
            return [sys.executable, "-c", PROGRAM, str(tmp_path), str(self.needed)]

        def is_ready(self):
            return (tmp_path / "ready").exists()

    def make(number):
        server.needed = number
        return server

    server = Flaky(tmp_path, tmp_path, port=1)
    yield make
    server.stop()


def test_the_third_start_succeeds(server_that_needs):
    server = server_that_needs(3)
    server.start()
    assert server.pid is not None


def test_after_the_third_failed_start_it_says_why(server_that_needs, tmp_path):
    with pytest.raises(StartError, match=r"flaky ended while starting(.|\n)*no_epmd_port"):
        server_that_needs(4).start()
    assert (tmp_path / "starts").read_text() == "xxx"
