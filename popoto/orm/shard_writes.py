"""What a save of a model with several shards does before and after the commit, in other slots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from popoto.orm import shards
from popoto.orm.claims import claim_commands, claims_of, confirm_commands
from popoto.orm.commands import Command
from popoto.orm.keys import ModelKeys

if TYPE_CHECKING:
    from popoto.orm.options import ModelOptions


def prepare(
    command: Command[Any], meta: ModelOptions, keys: ModelKeys, values: Mapping[str, Any], names: frozenset[str] | None
) -> None:
    """Add to the save of a record what must come before and after it: the shard is entered, unique values are claimed.

    Args:
        command: the commit; the first of its arguments is the record's key.
        names: the fields that a partial save writes; None for all.
    """
    if not shards.is_sharded(meta):
        return
    enter = shards.enter(meta, keys)
    claims = claims_of(meta, values, names)
    command.firsts = (*(() if enter is None else (enter,)), *claim_commands(claims, command.args[0]))
    command.thens = confirm_commands(claims, command.args[0])
