"""The data of the example: a small town, always the same."""

from __future__ import annotations

from decimal import Decimal

from popoto_kitchen.models import Customer, Driver, MenuItem, Order, Restaurant

_RESTAURANTS = [
    ("Taco Town", "Mexican", 4.2, (50.7374, 7.0982), True),
    ("Burger Palace", "American", 4.0, (50.7330, 7.1010), True),
    ("Sushi Spot", "Japanese", 4.8, (50.7290, 7.0900), True),
    ("Pasta Piazza", "Italian", 4.5, (50.7420, 7.0700), False),
    ("Green Bowl", "Vegan", 4.6, (50.7260, 7.1200), True),
    ("Harbour Grill", "American", 3.7, (50.9375, 6.9603), True),
]
_DISHES = ["Classic", "Special", "Family size", "For kids"]
_PEOPLE = [
    ("alice", (50.7350, 7.1000), "Sushi Spot", None),
    ("bob", (50.7300, 7.0950), "Burger Palace", "alice"),
    ("cora", (50.7410, 7.0720), "Green Bowl", "alice"),
    ("dave", (50.9380, 6.9570), None, "bob"),
]
_DRIVERS = [("Nia", (50.7340, 7.0995), False), ("Omar", (50.7280, 7.1180), True), ("Pia", (50.9400, 6.9600), False)]
_ORDERS = [
    # customer, restaurant, driver, status, dishes, minutes
    ("alice", "Sushi Spot", "Nia", "delivered", 2, 31),
    ("alice", "Taco Town", "Omar", "delivered", 1, 22),
    ("bob", "Burger Palace", "Nia", "delivered", 3, 44),
    ("bob", "Sushi Spot", "Omar", "on its way", 1, 12),
    ("cora", "Green Bowl", None, "cooking", 2, 4),
    ("cora", "Taco Town", "Nia", "delivered", 4, 52),
    ("dave", "Harbour Grill", "Pia", "on its way", 2, 18),
    ("alice", "Green Bowl", None, "cooking", 1, 2),
]


def seed() -> dict[str, int]:
    """Store everything; return model name -> how many records. One call a model: bulk_create."""
    restaurants = [
        Restaurant(name=name, cuisine=cuisine, rating=rating, location=place, is_open=is_open)
        for name, cuisine, rating, place, is_open in _RESTAURANTS
    ]
    by_name = {restaurant.name: restaurant for restaurant in restaurants}
    menu = [
        MenuItem(
            sku=f"{restaurant.name}/{number}",
            restaurant_name=restaurant.name,
            restaurant=restaurant,
            name=f"{restaurant.cuisine} {dish.lower()}",
            price=Decimal("6.50") + number * Decimal("3.25") + place,
            tags=["kids"] if dish == "For kids" else [],
        )
        for place, restaurant in enumerate(restaurants)
        for number, dish in enumerate(_DISHES)
    ]
    customers = [
        Customer(
            username=name,
            email=f"{name}@example.com",
            home=home,
            favourite=by_name.get(favourite or ""),
            invited_by=f"Customer:{inviter}" if inviter else None,
        )
        for name, home, favourite, inviter in _PEOPLE
    ]
    by_username = {customer.username: customer for customer in customers}
    drivers = [Driver(name=name, location=place, busy=busy) for name, place, busy in _DRIVERS]
    by_driver = {driver.name: driver for driver in drivers}
    orders = [
        Order(
            order_id=f"order{number}",
            customer=by_username[customer],
            restaurant=by_name[restaurant],
            driver=by_driver.get(driver or ""),
            status=status,
            total=dishes * Decimal("9.75"),
            minutes=minutes,
        )
        for number, (customer, restaurant, driver, status, dishes, minutes) in enumerate(_ORDERS, 1)
    ]
    return {
        "Restaurant": len(Restaurant.bulk_create(restaurants)),
        "MenuItem": len(MenuItem.bulk_create(menu)),
        "Customer": len(Customer.bulk_create(customers)),
        "Driver": len(Driver.bulk_create(drivers)),
        "Order": len(Order.bulk_create(orders)),
    }
