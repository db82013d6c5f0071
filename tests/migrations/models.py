"""One model before and after its change, as programs of two versions have it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from popoto.migrations import AddField, DropField, Migration, RenameField, RetypeField
from popoto.orm.fields.indexed import IndexedField, UniqueField
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.sorted import SortedField
from popoto.orm.fields.typed import IntField, StringField
from popoto.orm.model import Model


def old_order() -> Any:
    """Return the model as it was: keyed by number, the price a text."""

    class Order(Model):
        number = KeyField(type=int)
        state = IndexedField(default="new")
        total = StringField()
        code = UniqueField()
        rank = SortedField(type=int, default=0, partition_by="state")
        remark = StringField(null=True)

    return Order


def new_order() -> Any:
    """Return the model as it is to be: keyed by customer and number, the price an indexed Decimal."""

    class Order(Model):
        number = KeyField(type=int)
        customer = KeyField()
        status = IndexedField(default="new")
        amount = SortedField(type=Decimal)
        code = UniqueField()
        rank = SortedField(type=int, default=0, partition_by="status")
        size = IntField(default=0)

    return Order


def customer_of(record: Any) -> str:
    return f"c{record['number'] % 7}"


def migration(model: Any, **options: Any) -> Migration:
    steps = [
        RenameField("state", "status"),
        RenameField("total", "amount"),
        RetypeField("amount", convert=Decimal, was=str),
        AddField("customer", make=customer_of),
        AddField("size", default=1),
        DropField("remark"),
    ]
    return Migration("2026-11 orders", model, steps, **options)


def fill(model: Any, count: int) -> dict[int, dict[str, Any]]:
    """Store old orders and return what they are to become, by number."""
    expected = {}
    for number in range(count):
        state = ("new", "paid", "sent")[number % 3]
        model.create(number=number, state=state, total=f"{number}.50", code=f"code{number}", rank=number, remark="x")
        expected[number] = {
            "number": number,
            "customer": f"c{number % 7}",
            "status": state,
            "amount": Decimal(f"{number}.50"),
            "code": f"code{number}",
            "rank": number,
            "size": 1,
        }
    return expected
