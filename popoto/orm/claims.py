"""Unique values across shards: claimed, committed, confirmed; on a cluster, for models with `Meta.shard_by`.

A unique value and the record that has it lie in different slots, so one step cannot hold both. The value's own slot has
a claim: the key of the record that owns it. A save

1. claims the values (one round trip), and asks a foreign owner's record whether it still holds the value;
2. commits the record in its shard, as everywhere;
3. confirms the claims (one round trip), which also tells whether somebody has taken one over.

An owner that does not hold the value loses it to the next who wants it: at once if its claim was confirmed (it was
changed or deleted), and after `GRACE_S` if not (its save is under way, or died between 1 and 2). So a crash leaves at
most a value that nobody can have for `GRACE_S`. Nobody has to give a claim back: it costs about 150 bytes until then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from popoto import redis_db
from popoto.exceptions import AlreadyExistsError, ModelException
from popoto.orm.commands import Command, Exchange, exchange
from popoto.orm.keys import claim_key, claim_sentinel_key
from popoto.orm.scripts import Script

if TYPE_CHECKING:
    from popoto.orm.options import ModelOptions

CLAIM = Script("popoto.orm", "claim")
CONFIRM = Script("popoto.orm", "confirm_claim")
GRACE_S = 60.0  # longer than a commit may take: commands.CLUSTER_PATIENCE_S and a timeout
_UNIQUE = frozenset({"u", "tu"})
Claims = list[tuple[str, str, bytes]]
"""(claim key, field name, the value as a record's hash has it)"""


def claims_of(meta: ModelOptions, values: Mapping[str, Any], names: frozenset[str] | None) -> Claims:
    """Return the claims that a save of these values needs; `names`: the fields that a partial save writes."""
    found: Claims = []
    for slot in meta.slots:
        written = names is None or slot.touched_by(names)
        if slot.kind not in _UNIQUE or slot.parts == (meta.shard_by,) or not written:
            continue
        made = slot.make(values)
        if made is None or made[1] is True:  # no value: many may have none
            continue
        name = slot.field_name
        key = claim_key(redis_db.key_namespace(), meta.model_name, name, ":".join(made[0]))
        found.append((key, name, meta.fields[name].encode(values[name])))
    return found


def claim_commands(claims: Claims, record_key: str) -> tuple[Command[Any], ...]:
    """Return the claiming; what is another's is settled by what their `parse` returns (see `commands.carry_out`)."""
    return tuple(_claim(claim, record_key) for claim in claims)


def confirm_commands(claims: Claims, record_key: str) -> tuple[Command[Any], ...]:
    """Return the confirming, for after the save."""
    return tuple(_confirm(claim, record_key) for claim in claims)


def _claim(claim: tuple[str, str, bytes], record_key: str, owner: bytes = b"", pending: bytes = b"") -> Command[Any]:
    def parse(reply: Any) -> Exchange[None] | None:
        return None if reply is None else _contest(claim, record_key, *reply)

    args = (claim[0], claim_sentinel_key(claim[0]), record_key, owner, pending, int(GRACE_S * 1000))
    return Command(args, parse, CLAIM, key_count=2, repeat="same")


def _contest(
    claim: tuple[str, str, bytes], record_key: str, owner: bytes, pending: bytes, decided: int
) -> Exchange[None]:
    """Ask the owner's record whether it holds the value, and take the claim over if not.

    Raises: AlreadyExistsError: it does, or its save may still be under way.
    """
    _, name, value = claim
    shown = owner.decode("utf-8", "replace")[:120]
    held: bytes | None = yield from exchange(Command(("HGET", owner.decode("utf-8", "surrogateescape"), name)), True)
    if held == value:
        raise AlreadyExistsError(
            f"{name}: the value already exists (it belongs to {shown}); nothing was written. Choose another value, or "
            "change that record first."
        )
    if not decided:
        raise AlreadyExistsError(
            f"{name}: the value is being claimed by {shown}, whose save has not ended; nothing was written. Try "
            f"again; if that save has died, the value is free {GRACE_S:.0f} s after it began."
        )
    further = yield from exchange(_claim(claim, record_key, owner, pending), True)
    if further is not None:
        yield from further


def _confirm(claim: tuple[str, str, bytes], record_key: str) -> Command[Any]:
    def parse(owner: bytes | None) -> None:
        if owner is not None:
            raise ModelException(
                f"{claim[1]}: the save of {record_key} took so long that {owner.decode('utf-8', 'replace')[:120]} has "
                "claimed its value meanwhile. Both records hold it now: change or delete one of them."
            )

    return Command((claim[0], claim_sentinel_key(claim[0]), record_key), parse, CONFIRM, key_count=2, repeat="same")
