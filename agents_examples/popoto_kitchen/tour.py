"""The tour: what the models can be asked, each question with the line of code that asks it."""

from __future__ import annotations

from popoto_kitchen.models import Customer, Driver, MenuItem, Order, Restaurant
from popoto_kitchen.screen import Screen


def tour(screen: Screen) -> None:
    """Show the queries."""
    _lookups(screen)
    _places(screen)
    _relationships(screen)
    _writes(screen)


def _lookups(screen: Screen) -> None:
    screen.heading("Filters, order, ranges")
    screen.code('Restaurant.query.filter(cuisine="American", order_by="-rating")')
    found = Restaurant.query.filter(cuisine="American", order_by="-rating")
    screen.table(["name", "rating"], [(r.name, r.rating) for r in found])
    screen.code('Restaurant.query.filter(rating__gte=4.5).values("name", "rating", "is_open")')
    rows = Restaurant.query.filter(rating__gte=4.5).values("name", "rating", "is_open")
    screen.table(["name", "rating", "open"], [row.values() for row in rows])
    screen.code('MenuItem.query.filter(restaurant_name="Taco Town", price__lte=10, order_by="price", limit=3)')
    cheap = MenuItem.query.filter(restaurant_name="Taco Town", price__lte=10, order_by="price", limit=3)
    screen.table(["dish", "price"], [(item.name, item.price) for item in cheap])
    screen.code('Restaurant.query.filter(name__startswith="S").first().name, Restaurant.query.count(is_open=True)')
    screen.say(f"{Restaurant.query.filter(name__startswith='S').first().name}, {Restaurant.query.count(is_open=True)}")


def _places(screen: Screen) -> None:
    screen.heading("Places")
    alice = Customer.query.get(username="alice")
    screen.code(
        'Restaurant.query.filter(location=alice.home, location_radius=2, location_radius_unit="km",\n'
        "                        location_with_distances=True)   # nearest first"
    )
    near = Restaurant.query.filter(
        location=alice.home, location_radius=2, location_radius_unit="km", location_with_distances=True
    )
    screen.table(["name", "km"], [(r.name, f"{r._geo_distance:.2f}") for r in near])
    screen.code('Driver.query.filter(busy=False, location=alice.home, location_radius=5, location_radius_unit="km")')
    free = Driver.query.filter(busy=False, location=alice.home, location_radius=5, location_radius_unit="km")
    screen.table(["driver"], [(driver.name,) for driver in free])


def _relationships(screen: Screen) -> None:
    screen.heading("Relationships")
    screen.code('Order.query.filter(status="on its way")   # the records they point to: one round trip for the list')
    orders = Order.query.filter(status="on its way")
    screen.table(
        ["order", "customer", "restaurant", "driver"],
        [(o.order_id, o.customer.username, o.restaurant.name, o.driver and o.driver.name) for o in orders],
    )
    screen.code('Order.query.filter(customer__username="alice", order_by="-minutes").prefetch("restaurant", "driver")')
    hers = Order.query.filter(customer__username="alice", order_by="-minutes").prefetch("restaurant", "driver")
    screen.table(
        ["order", "restaurant", "minutes", "driver"],
        [(o.order_id, o.restaurant.name, o.minutes, o.driver and o.driver.name) for o in hers],
    )
    screen.code('Order.query.filter(customer__invited_by__username="alice", restaurant__rating__gte=4.5)')
    found = Order.query.filter(customer__invited_by__username="alice", restaurant__rating__gte=4.5)
    screen.table(
        ["order", "customer", "restaurant"], [(o.order_id, o.customer.username, o.restaurant.name) for o in found]
    )
    screen.code('order.to_dict(include=["order_id", "customer"], relationships=True, max_depth=1)')
    nested = orders[0].to_dict(include=["order_id", "customer"], relationships=True, max_depth=1)
    screen.table(["customer field", "value"], nested["customer"].items())


def _writes(screen: Screen) -> None:
    screen.heading("Writes")
    screen.code('Customer.get_or_create(username="erin", defaults={"email": "erin@example.com"})   # twice')
    rows = [Customer.get_or_create(username="erin", defaults={"email": "erin@example.com"}) for _ in range(2)]
    screen.table(["customer", "created"], [(customer.username, created) for customer, created in rows])
    screen.code(
        'Order.create(customer=erin, restaurant="Restaurant:Taco Town"); erin.atomic_increment("orders_placed", 1)'
    )
    erin = rows[0][0]
    order = Order.create(customer=erin, restaurant="Restaurant:Taco Town")
    number = erin.atomic_increment("orders_placed", 1)
    screen.say(f"{order.restaurant.cuisine} for {order.customer.username}, order number {number}")
    screen.code('Order.bulk_update(Order.query.filter(status="cooking"), status="on its way")')
    screen.say(
        f"{Order.bulk_update(Order.query.filter(status='cooking'), status='on its way')} orders are on their way now."
    )
    nia = Driver.query.get(name="Nia")
    nia.busy = True
    screen.code('nia.busy = True; nia.save(update_fields=["busy"])')
    nia.save(update_fields=["busy"])
    screen.say(f"Free drivers: {', '.join(driver.name for driver in Driver.query.filter(busy=False))}")
