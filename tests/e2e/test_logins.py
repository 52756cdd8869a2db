"""Two hundred people log in at the same moment, again and again: orders are taken all the same."""

import threading
from collections import Counter

from qa.hostile_clients import NormalClients, connector, log_in_concurrently

LOGINS = 200
SECONDS = 6


def test_orders_and_probes_are_served_during_a_storm_of_logins(shop):
    product = shop.product(stock=10_000)
    order = {"items": [{"product_id": product["id"], "quantity": 1}]}
    orders = NormalClients(connector(shop.url, "POST", "/orders", shop.customer.token, lambda: order), 2)
    live = NormalClients(connector(shop.url, "GET", "/health/live"), 2)
    outcomes, over = [], threading.Event()

    def storm():
        while not over.is_set():
            log_in_concurrently(shop.url, "Demo-pass-2026!", LOGINS, outcomes)

    threads = [threading.Thread(target=storm), threading.Thread(target=live.run, args=(SECONDS,))]
    for thread in threads:
        thread.start()
    orders.run(SECONDS)
    over.set()
    for thread in threads:
        thread.join()
    logins = Counter(status for status, _ in outcomes)
    print(f"orders: {orders}\nlive: {live}\nlogins: {logins}")
    assert set(orders.statuses) == {201}
    assert set(live.statuses) == {200}
    # Lenient, for machines that have much else to do; where logins held up orders, half of these took 4 s and more.
    assert orders.percentile(0.5) < 2500
    assert live.percentile(0.5) < 500
    assert logins.keys() <= {200, 503, 504}  # what is too much is told so
    assert logins[200] >= 10
    assert log_in_succeeds(shop)


def log_in_succeeds(shop):
    """Once the storm is over, a person gets in."""
    outcomes = []
    log_in_concurrently(shop.url, "Demo-pass-2026!", 1, outcomes)
    return outcomes[0][0] == 200
