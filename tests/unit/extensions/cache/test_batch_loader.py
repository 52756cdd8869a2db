"""Questions that share round trips: none is told what was before it asked, and none waits for ever."""

import eventlet
import pytest
from eventlet.event import Event as Signal

from extensions.cache.batch_loader import BatchLoader


class Server:
    """Answers each key with how often anything has been asked of it, once it is let."""

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
def trips(server):
    return BatchLoader(server.ask)


def ask_for(trips, *keys):
    """Ask for each key in a greenlet of its own, and let them come as far as they come."""
    asking = [eventlet.spawn(trips.get, key) for key in keys]
    for _ in range(3):
        eventlet.sleep(0)
    return asking


def test_who_asks_in_the_same_moment_is_asked_for_together_and_each_key_once(trips, server):
    asking = ask_for(trips, "a", "b", "a")
    server.open.send()
    assert [each.wait() for each in asking] == [1, 1, 1]
    assert server.asked == [["a", "b"]]


def test_who_comes_while_others_are_asked_for_is_not_told_what_was_before(trips, server):
    first = ask_for(trips, "a")
    later = ask_for(trips, "a", "b", "c")
    assert server.asked == [["a"]]
    server.open.send()
    assert [each.wait() for each in (*first, *later)] == [1, 2, 2, 2]
    assert server.asked == [["a"], ["a", "b", "c"]]


def test_what_has_no_answer_is_none(server):
    assert BatchLoader(lambda _keys: {}).get("a") is None


@pytest.mark.parametrize("before", [[], ["busy"]])
def test_when_the_one_who_asks_for_all_is_ended_the_others_are_told_and_the_next_can_ask(trips, server, before):
    busy = ask_for(trips, *before)
    leader, follower = ask_for(trips, "a", "b")
    leader.kill()
    assert follower.wait() is None
    server.open.send()
    assert [each.wait() for each in busy] == [1 for _ in before]
    assert trips.get("c") == 2


def test_an_error_is_the_one_who_asked_alone(server):
    def fail(_keys):
        raise KeyError(0)

    leader, follower = ask_for(BatchLoader(fail), "a", "b")
    with pytest.raises(KeyError):
        leader.wait()
    assert follower.wait() is None
