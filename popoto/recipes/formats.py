"""Records as text for a model's context: JSON, XML or plain lines.

Content comes first: the field that a BM25Field reads, then the others as declared. What only steers the ranking (decay
clocks, confidences), generated keys and None values are left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any
from xml.sax.saxutils import escape

from popoto.memory.bm25 import BM25Field
from popoto.memory.confidence import ConfidenceField
from popoto.memory.decay import DecayingSortedField
from popoto.orm.fields.key import AutoKeyField

_STEERING = (DecayingSortedField, ConfidenceField, AutoKeyField)


def shown_fields(record: Any, leave_out: Container[str] = ()) -> dict[str, Any]:
    """Return what a reader of the context should see of a record (or of a dict): field name -> value."""
    if isinstance(record, Mapping):
        return {name: value for name, value in record.items() if value is not None and name not in leave_out}
    fields = record._meta.explicit_fields
    sources = [field.source for field in fields.values() if isinstance(field, BM25Field)]
    names = [*dict.fromkeys([name for name in sources if name in fields] + list(fields))]
    out = {}
    for name in names:
        value = getattr(record, name)
        if value is not None and name not in leave_out and not isinstance(fields[name], _STEERING):
            out[name] = value
    return out


def format_structured(records: Iterable[Any], leave_out: Container[str] = ()) -> str:
    """Return a JSON array of objects, indented by 2; values that JSON lacks as text."""
    return json.dumps(
        [shown_fields(record, leave_out) for record in records], indent=2, default=str, ensure_ascii=False
    )


def format_xml(records: Iterable[Any], leave_out: Container[str] = ()) -> str:
    """Return `<records>` of `<record>` of `<field>value</field>`, values escaped."""
    lines = ["<records>"]
    for record in records:
        lines.append("  <record>")
        lines += [
            f"    <{name}>{escape(str(value))}</{name}>" for name, value in shown_fields(record, leave_out).items()
        ]
        lines.append("  </record>")
    return "\n".join([*lines, "</records>"])


def format_natural(records: Iterable[Any], leave_out: Container[str] = ()) -> str:
    """Return a numbered line a record: `1. field: value, field: value`."""
    return "\n".join(
        f"{number}. " + ", ".join(f"{name}: {value}" for name, value in shown_fields(record, leave_out).items())
        for number, record in enumerate(records, 1)
    )


FORMATS: dict[str, Callable[..., str]] = {
    "structured": format_structured,
    "xml": format_xml,
    "natural": format_natural,
}
