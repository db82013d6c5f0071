"""What is measured: one line an operation."""

from __future__ import annotations

from dataclasses import dataclass

from .data import BATCH, PAGE


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the report.

    Attributes:
        name: what `--only` and the workers call it.
        title: what the report calls it.
        dataset: "records", "memories", "signals" or "unrelated", which must be loaded before.
        items_a_call: records that one call handles; times are given for one of them.
        most_calls: upper bound of calls a round.
        depends_on_size: False: measured at the first size only.
        needs: smallest size of the store.
    """

    name: str
    title: str
    dataset: str = "records"
    items_a_call: int = 1
    most_calls: int = 2000
    depends_on_size: bool = True
    needs: int = 1


OPERATIONS: tuple[Operation, ...] = (
    Operation("construct", "construct, 6 fields", depends_on_size=False, most_calls=20_000),
    Operation("hydrate", f"hydrate, get_many of {BATCH}", items_a_call=BATCH, depends_on_size=False, needs=BATCH),
    Operation("save", "save"),
    Operation("create", "create (construct + save)"),
    Operation("save_pipelined", f"pipelined saves, {BATCH} a batch", items_a_call=BATCH, most_calls=5),
    Operation("bulk_create", f"bulk_create of {BATCH}", items_a_call=BATCH, most_calls=5),
    Operation("bulk_update", f"bulk_update of a query, {BATCH} match", items_a_call=BATCH, most_calls=5, needs=BATCH),
    Operation("delete_all", f"delete_all of {BATCH}, beside the others", items_a_call=BATCH, most_calls=5),
    Operation("get", "get"),
    Operation("update_one", "update of one sorted field"),
    Operation("delete", "delete"),
    Operation("filter", f"equality + range + limit {PAGE}"),
    Operation("range", "range of 1 %"),
    Operation("order_by", f"order_by + limit {PAGE}"),
    Operation("startswith", "startswith, 10 match", needs=10),
    Operation("count", "count of all"),
    Operation("count_where", "count by equality"),
    Operation("count_range", "count by equality + range"),
    Operation("top_by_decay", f"top_by_decay, n = {PAGE}", dataset="memories"),
    Operation("top_by_decay_cycles", f"top_by_decay with cycles, n = {PAGE}", dataset="signals"),
    Operation("composite_two", "composite_score, 2 signals", dataset="signals"),
    Operation("composite_four", "composite_score, 4 signals", dataset="signals"),
    Operation("search", "BM25 search, 3 words", dataset="signals"),
    Operation("composite_unrelated", "composite_score, 4 unrelated signals", dataset="unrelated"),
)
BY_NAME = {operation.name: operation for operation in OPERATIONS}
DATASETS = ("records", "memories", "signals", "unrelated")
