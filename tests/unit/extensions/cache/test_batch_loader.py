"""The batch loader: no read returns a value from before its call, and none blocks forever."""

import eventlet
import pytest
from eventlet.event import Event as Signal

from extensions.cache.batch_loader import BatchLoader


class Server:
    """Returns the number of round trips so far as the value of each key; blocks until it is opened."""

    def __init__(self):
        self.asked = []
        self.open = Signal()

    def ask(self, keys):
        self.asked.append(keys)
        number = len(self.asked)
        self.open.wait()
        return dict.fromkeys(keys, number)


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def loader(server):
    return BatchLoader(server.ask)


def ask_for(loader, *keys):
    """Read each key in a separate greenlet, and let these run until they block."""
    asking = [eventlet.spawn(loader.get, key) for key in keys]
    for _ in range(3):
        eventlet.sleep(0)
    return asking


def test_concurrent_reads_share_a_round_trip_with_each_key_once(loader, server):
    asking = ask_for(loader, "a", "b", "a")
    server.open.send()
    assert [each.wait() for each in asking] == [1, 1, 1]
    assert server.asked == [["a", "b"]]


def test_reads_during_a_round_trip_wait_for_the_next_one(loader, server):
    first = ask_for(loader, "a")
    later = ask_for(loader, "a", "b", "c")
    assert server.asked == [["a"]]
    server.open.send()
    assert [each.wait() for each in (*first, *later)] == [1, 2, 2, 2]
    assert server.asked == [["a"], ["a", "b", "c"]]


def test_a_key_without_a_value_is_none(server):
    assert BatchLoader(lambda _keys: {}).get("a") is None


@pytest.mark.parametrize("before", [[], ["busy"]])
def test_a_killed_leader_of_a_batch_blocks_neither_the_others_nor_the_next_batch(loader, server, before):
    busy = ask_for(loader, *before)
    leader, follower = ask_for(loader, "a", "b")
    leader.kill()
    assert follower.wait() is None
    server.open.send()
    assert [each.wait() for each in busy] == [1 for _ in before]
    assert loader.get("c") == 2


def test_an_error_is_raised_to_the_leader_of_the_batch_only(server):
    def fail(_keys):
        raise KeyError(0)

    leader, follower = ask_for(BatchLoader(fail), "a", "b")
    with pytest.raises(KeyError):
        leader.wait()
    assert follower.wait() is None
