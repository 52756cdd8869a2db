"""Services started by `nameko run` in a terminal, and RPC calls from `nameko shell`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.healthcheck import parts_down
from deploy.shell import COMMAND, STARTUP
from tests.support import eventually

ROOT = Path(__file__).parent.parent.parent
NAMEKO = [sys.executable, "-m", "nameko"]


@pytest.fixture
def by_hand(shop, tmp_path):
    """Return a function that starts services in one process with `nameko run`."""
    processes = []

    def run(*modules):
        with (tmp_path / "log").open("w") as log:
            process = subprocess.Popen(
                [*NAMEKO, "run", "--config", "config.yml", *modules],
                cwd=ROOT,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        processes.append(process)
        log = tmp_path / "log"
        eventually(lambda: log.read_text().count("listening on RabbitMQ") == len(modules), timeout=30)

    yield run
    for process in processes:
        process.terminate()
        assert process.wait(20) == 0, (tmp_path / "log").read_text()[-4000:]


def await_ready(shop):
    """Wait until every service is healthy."""

    def all_up():
        status, body = shop.admin.request("GET", "/health/ready")
        return status == 200 and not parts_down(body)

    eventually(all_up, timeout=30)


def shell(lines):
    """Return what `make shell` prints when `lines` are typed into it."""
    done = subprocess.run(
        COMMAND,
        input="\n".join(lines) + "\n",
        cwd=ROOT,
        env=os.environ | STARTUP,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_a_service_of_nameko_run_responds_to_the_shell(shop, by_hand):
    pen = shop.product(stock=7)
    shop.stop("inventory")
    by_hand("inventory.service")
    await_ready(shop)
    printed = shell([f"print(n.rpc.inventory.get_stock('{pen['id']}')['available'] * 6)"])
    assert "42" in printed, printed
    shop.reaches(shop.order((pen, 1)), "CONFIRMED")


def test_several_services_in_one_process(shop, by_hand):
    pen = shop.product(stock=7)
    shop.stop("inventory", "payments", "orders")
    by_hand("orders.service", "inventory.service", "payments.service")
    await_ready(shop)
    shop.reaches(shop.order((pen, 1)), "CONFIRMED")
    shop.has_stock(pen, 6)


def test_the_shell_creates_the_first_admin_and_shows_errors(shop):
    printed = shell(
        [
            "user = n.rpc.users.register('boss@example.com', 'a-password-for-the-boss')['user']",
            "print(n.rpc.users.set_roles(user['id'], ['customer', 'admin'])['roles'])",
            "n.rpc.orders.get_order('01900000-0000-7000-8000-000000000000')",
        ]
    )
    assert "['customer', 'admin']" in printed, printed
    assert "OrderNotFound There is no order with this id." in printed, printed


def test_two_instances_of_every_service_share_the_work(shop, by_hand):
    pen = shop.product(stock=100)
    by_hand("orders.service", "inventory.service", "payments.service", "notifications.service")
    orders = [shop.order((pen, 1)) for _ in range(20)]
    for order in orders:
        shop.reaches(order, "CONFIRMED")
    eventually(lambda: shop.stock(pen) == (80, 0))
    shop.assert_sound()


def test_the_shell_does_not_wait_for_a_service_that_is_down(shop):
    shop.stop("payments")
    printed = shell(["n.rpc.payments.list_payments()"])
    # The queue of a service expires a minute after its last process. On a slow machine the shell starts later.
    assert "RpcTimeout" in printed or "UnknownService" in printed, printed
