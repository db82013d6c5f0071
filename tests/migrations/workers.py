"""Processes that tests start and kill: `python -m tests.migrations.workers <what> <url>`."""

from __future__ import annotations

import sys

from popoto import redis_db
from tests.migrations.models import migration, new_order


def migrate() -> None:
    """Run the migration in small batches; print after each."""
    print("started", flush=True)
    migration(new_order(), batch_size=20).run(progress=lambda done, total: print(done, total, flush=True))
    print("finished", flush=True)


def write() -> None:
    """Save orders with the new model for ever: some new, some changed; print each acknowledged step."""
    model = new_order()
    number = 0
    while True:
        name = 10_000 + number
        model.create(number=name, customer="new", status="paid", amount="1.5", code=f"w{name}", rank=number)
        print("created", name, flush=True)
        for order in model.query.filter(customer=f"c{number % 7}", limit=3):
            if order.size == 1:
                order.size, order.status = 77, "touched"
                order.save(update_fields=["size", "status"])
                print("touched", order.number, flush=True)
        number += 1


if __name__ == "__main__":
    redis_db.configure_url(sys.argv[2])
    {"migrate": migrate, "write": write}[sys.argv[1]]()
