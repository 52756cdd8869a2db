"""How fast the search of products is: `make search-speed`, or `python -m qa.search_speed --products 100000`.

It starts a PostgreSQL of its own, fills the database of catalog with generated products, and calls the query of the
service as the service does, without its cache. It prints p50 and p99 of each kind of search, and fails if a p99 is over
the goal.
"""

import argparse
import io
import os
import random
import sys
import time
from contextlib import closing
from pathlib import Path
from statistics import quantiles

import psycopg2
from nameko.cli.utils import setup_config
from sqlalchemy.orm import Session

from catalog import queries
from contracts.base import OPERATOR
from contracts.catalog import ProductFilter
from contracts.ids import new_id
from deploy.config_file import ROOT
from deploy.local.servers import Servers, remove_data
from deploy.migrate import migrate
from extensions.runtime import garbage
from extensions.runtime.addresses import database_url
from extensions.storage.engine import make_engine
from qa import products as generated

GOAL_MS = 30.0
WARM_UP = 30  # a service compiles each form of a statement once, and kinds have several
COPIED = 1_000  # at once, as an import does
COLUMNS = "id, sku, name, price, description, is_active, currency, version"


def main(arguments=None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--products", type=int, default=100_000)
    parser.add_argument("--calls", type=int, default=100, help="calls of each kind of search")
    parser.add_argument("--keep", action="store_true", help="use the products of the last run, and keep them")
    parser.add_argument(
        "--fresh", action="store_true", help="as just after an import: PostgreSQL has not yet vacuumed and analysed"
    )
    parser.add_argument("--only", default="", help="only the kinds of searches whose names contain this text")
    options = parser.parse_args(arguments)
    folder = ROOT / "var/search-speed"
    if not options.keep:
        remove_data(folder)
    unused = {"AMQP_URI": "pyamqp://unused", "REDIS_URL": "redis://unused"}
    servers = Servers(Path(folder), environ=unused)
    try:
        os.environ.update(servers.start())
        return measure(servers, options)
    finally:
        servers.stop()


def measure(servers, options) -> int:
    """Fill the database and measure. Returns the exit code."""
    with (ROOT / "config.yml").open("rb") as file:
        setup_config(file)
    from nameko import config

    migrate(["catalog"], say=lambda _: None)
    count, calls = options.products, options.calls
    fill(servers.postgres.administrator_url(), count, is_fresh=options.fresh)
    engine = make_engine(database_url(config, "catalog"))
    garbage.end_start()  # as a service does: otherwise a collection looks at everything imported
    slow, every = 0, []
    print(f"{count} products, {calls} calls of each kind; milliseconds")
    print(f"  {'':34} {'p50':>8} {'p99':>8}   {'p50 cpu':>8} {'p99 cpu':>8}   found")
    for kind, searches in kinds(count).items():
        if options.only not in kind:
            continue
        times, spent, pages = [], [], 0
        for number in range(-WARM_UP, calls):
            fields = searches(random.Random(number))
            with Session(engine) as session:
                backend = session.connection().connection.dbapi_connection.info.backend_pid
                began, used = time.perf_counter(), processor_seconds(backend)
                page = queries.list_products(session, ProductFilter.parse(fields), OPERATOR)
                times.append((time.perf_counter() - began) * 1000)
                spent.append((processor_seconds(backend) - used) * 1000)
            if number < 0:
                times.pop()
                spent.pop()
                continue
            pages += bool(page["items"])
        (p50, p99), (c50, c99) = percentiles(times), percentiles(spent)
        slow += p99 > GOAL_MS
        every += times
        print(f"  {kind:34} {p50:8.1f} {p99:8.1f}   {c50:8.1f} {c99:8.1f}   {pages:5}")
    engine.dispose()
    p50, p99 = percentiles(every)
    print(f"  {'all of them':34} {p50:8.1f} {p99:8.1f}")
    print(f"{slow} kinds are over {GOAL_MS:.0f} ms" if slow else f"every p99 is at most {GOAL_MS:.0f} ms")
    return 1 if slow else 0


def percentiles(times):
    """Return the median and the 99th percentile."""
    cuts = quantiles(times, n=100, method="inclusive")
    return cuts[49], cuts[98]


def processor_seconds(backend):
    """Return how long this process and a process of PostgreSQL have run: on a busy machine the rest is waiting."""
    return time.process_time() + int(Path(f"/proc/{backend}/schedstat").read_text().split()[0]) / 1e9


def fill(administrator, count, *, is_fresh):
    """Store generated products, unless there are so many."""
    with closing(
        psycopg2.connect(administrator.replace("+psycopg2", "").rpartition("/")[0] + "/catalog")
    ) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM products")
            if cursor.fetchone()[0] == count:
                return
            began = time.monotonic()
            cursor.execute("TRUNCATE products, product_words")
            rows = ["\t".join([str(new_id()), *one.values(), "TRY", "1"]) + "\n" for one in generated.products(count)]
            for start in range(0, count, COPIED):
                copied = io.StringIO("".join(rows[start : start + COPIED]))
                cursor.copy_expert(f"COPY products ({COLUMNS}) FROM STDIN", copied)
            if not is_fresh:
                cursor.execute("VACUUM ANALYZE products")
                cursor.execute("VACUUM ANALYZE product_words")
            print(f"stored {count} products in {time.monotonic() - began:.0f} s")


def kinds(count):
    """Return the kinds of searches by name: functions of a random generator that return the fields of a query."""
    rare = generated.rare_words(random.Random(generated.SEED))

    def brand(chance):
        return rare[int(len(rare) * chance.random() ** 3)]

    def misspelt(word, chance):
        place = chance.randrange(1, len(word) - 1)
        return word[:place] + word[place + 1] + word[place] + word[place + 2 :]

    def kind(chance):
        return chance.choice(generated.KINDS)

    def two(chance):
        return f"{chance.choice(generated.COLOURS)} {kind(chance)}"

    def search(text, **others):
        return lambda chance: {"search": text(chance), **{name: value(chance) for name, value in others.items()}}

    sorts = ["price", "-price", "name", "-created_at", "sku"]
    letters = "abcdefghijklmnoprstuvyz"
    return {
        "one word": search(kind),
        "one brand": search(brand),
        "two words": search(two),
        "three words": search(lambda chance: f"{brand(chance)} {two(chance)}"),
        "a very common word": search(lambda chance: chance.choice(generated.USUAL)),
        "a common word, sorted": search(lambda c: c.choice(generated.USUAL), sort=lambda c: c.choice(sorts)),
        "prefix of one letter": search(lambda chance: chance.choice(letters)),
        "prefix of two letters": search(lambda chance: brand(chance)[:2]),
        "prefix of three letters": search(lambda chance: brand(chance)[:3]),
        "prefix of one letter, sorted": search(lambda c: c.choice(letters), sort=lambda c: c.choice(sorts)),
        "typing error": search(lambda chance: misspelt(kind(chance), chance)),
        "typing errors in two words": search(
            lambda c: f"{misspelt(c.choice(generated.COLOURS), c)} {misspelt(kind(c), c)}"
        ),
        "part of a word": search(lambda chance: kind(chance)[1:] + ""),
        "no hit": search(lambda chance: f"qx{chance.randrange(10**6)}wj"),
        "sku": search(lambda chance: f"-{chance.randrange(count):06d}"),
        "one word, prices": search(kind, min_price=lambda _: "100.00", max_price=lambda c: f"{c.randint(110, 400)}.00"),
        "common word, few prices, sorted": search(
            lambda c: c.choice(generated.USUAL),
            min_price=lambda c: f"{c.randint(100, 200)}.00",
            max_price=lambda _: "200.10",
            sort=lambda c: c.choice(sorts),
        ),
        "one letter, few prices": search(
            lambda c: c.choice(letters), min_price=lambda _: "999.00", max_price=lambda _: "1001.00"
        ),
        "one word, sorted by price": search(kind, sort=lambda c: c.choice(["price", "-price"])),
        "200 characters": search(lambda c: " ".join(c.choice(rare) for _ in range(60))[:200]),
        "200 letters in words of one": search(lambda c: " ".join(c.choice(letters) for _ in range(100))),
        "syntax": search(lambda c: "".join(c.choice("&|!:*'()<->\\% a") for _ in range(c.randint(1, 40)))),
    }


if __name__ == "__main__":
    sys.exit(main())
