"""Records as text for a model's context: JSON, XML or plain lines.

Content comes first: the field that a BM25Field reads, then the others as declared. What only steers the ranking (decay
clocks, confidences), generated keys and None values are left out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any
from xml.sax.saxutils import escape

from popoto.memory.bm25 import BM25Field
from popoto.memory.confidence import ConfidenceField
from popoto.memory.decay import DecayingSortedField
from popoto.orm.fields.key import AutoKeyField

_STEERING = (DecayingSortedField, ConfidenceField, AutoKeyField)
_JSON_KEYS = (str, int, float, type(None))
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, section 2.2


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
    rows = [_jsonable(shown_fields(record, leave_out)) for record in records]
    return json.dumps(rows, indent=2, default=str, ensure_ascii=False)


def _jsonable(value: Any) -> Any:
    """Return a value with what `json.dumps` would refuse or write outside of JSON made text: NaN, tuples as keys."""
    if isinstance(value, Mapping):
        return {key if isinstance(key, _JSON_KEYS) else str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def format_xml(records: Iterable[Any], leave_out: Container[str] = ()) -> str:
    """Return `<records>` of `<record>` of `<field>value</field>`, values escaped, what XML cannot hold as U+FFFD."""
    lines = ["<records>"]
    for record in records:
        lines.append("  <record>")
        lines += [
            f"    <{name}>{_escaped(str(value))}</{name}>" for name, value in shown_fields(record, leave_out).items()
        ]
        lines.append("  </record>")
    return "\n".join([*lines, "</records>"])


def _escaped(text: str) -> str:
    return escape(_NOT_XML.sub("\ufffd", text), {"\r": "&#13;"})


def format_natural(records: Iterable[Any], leave_out: Container[str] = ()) -> str:
    """Return a numbered line a record: `1. field: value, field: value`; line breaks of values become spaces.

    So no text that is remembered can pass itself off as a record of its own.
    """
    return "\n".join(
        f"{number}. " + ", ".join(f"{name}: {_line(value)}" for name, value in shown_fields(record, leave_out).items())
        for number, record in enumerate(records, 1)
    )


def _line(value: Any) -> str:
    return " ".join(str(value).splitlines())


FORMATS: dict[str, Callable[..., str]] = {
    "structured": format_structured,
    "xml": format_xml,
    "natural": format_natural,
}
