from extensions.http.server.connection_table import ConnectionTable, Phase


class FakeConnection:
    evicted = dropped = False
    held = 0

    def held_bytes(self):
        return self.held

    def drop(self):
        self.dropped = True

    def evict(self):
        self.evicted = True


def table_of(count, max_connections=10):
    table, connections = ConnectionTable(max_connections), [FakeConnection() for _ in range(count)]
    for connection in connections:
        table.add(connection)
    return table, connections


def test_the_connection_that_waits_longest_for_its_client_is_evicted():
    table, (first, second, third) = table_of(3)
    table.enter(first, Phase.SERVER)
    table.enter(second, Phase.IDLE)
    assert table.evict_slowest()
    assert [connection.evicted for connection in (first, second, third)] == [False, False, True]
    assert list(table) == [first, second]


def test_a_connection_whose_request_is_processed_is_never_evicted():
    table, (only,) = table_of(1)
    table.enter(only, Phase.SERVER)
    assert not table.evict_slowest()
    with table.waiting_for_client(only):
        assert table.idle() == []
    assert not table.evict_slowest()
    assert not only.evicted


def test_an_evicted_connection_does_not_return():
    table, (only,) = table_of(1)
    with table.waiting_for_client(only):
        assert table.evict_slowest()
    table.enter(only, Phase.IDLE)
    table.remove(only)
    assert len(table) == 0


def test_a_table_is_full_at_its_maximum():
    table, (first, _) = table_of(2, max_connections=2)
    assert table.is_full
    table.remove(first)
    assert not table.is_full


def test_those_that_were_slow_for_longest_are_dropped_until_the_others_hold_little_enough():
    table, all_of_them = table_of(5)
    running, oldest, empty, newer, newest = all_of_them
    table.enter(running, Phase.SERVER)
    running.held = oldest.held = newer.held = newest.held = 100
    table.enter(newest, Phase.CLIENT)
    assert table.evict_until_held(250) == 2
    assert [connection.dropped for connection in all_of_them] == [False, True, False, True, False]
    assert set(table) == {running, empty, newest}
    assert table.evict_until_held(250) == 0
