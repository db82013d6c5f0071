"""Operations: see whether the indexes agree with the records, and remove what leads nowhere.

A record that is deleted by hand, past popoto, leaves its index entries behind. `check_indexes()` counts them and writes
nothing; `clean_indexes()` removes exactly those, while others go on reading and writing.
"""

from __future__ import annotations

from popoto import get_redis
from popoto_kitchen.models import MODELS, Order, Restaurant
from popoto_kitchen.screen import Screen


def operations(screen: Screen) -> None:
    """Show check_indexes and clean_indexes, before and after breaking the indexes on purpose."""
    screen.heading("Index health")
    screen.code("for model in MODELS: model.check_indexes()")
    check(screen)
    screen.heading("Breaking them on purpose")
    victims = [Order.query.first(status="delivered").pk, Restaurant.query.get(name="Harbour Grill").pk]
    screen.code(f"get_redis().delete({', '.join(map(repr, victims))})   # past popoto: never do this")
    get_redis().delete(*victims)
    check(screen)
    screen.heading("Cleaning")
    screen.code("for model in MODELS: model.clean_indexes()")
    screen.table(["model", "entries removed"], [(model.__name__, model.clean_indexes()) for model in MODELS])
    left = check(screen)
    screen.say("All indexes are healthy." if left == 0 else f"{left} entries still lead nowhere.")


def check(screen: Screen) -> int:
    """Show what check_indexes finds in each model; return the total."""
    rows = []
    for model in MODELS:
        result = model.check_indexes()
        places = [
            f"{kind}.{name}: {count}" if isinstance(found, dict) else f"{kind}: {found}"
            for kind, found in result.items()
            if kind != "total" and found
            for name, count in (found.items() if isinstance(found, dict) else [("", found)])
            if count
        ]
        rows.append((model.__name__, model.query.count(), result["total"], ", ".join(places) or None))
    screen.table(["model", "records", "orphans", "where"], rows)
    return sum(row[2] for row in rows)
