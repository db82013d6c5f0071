"""Reciprocal rank fusion: several ranked lists of records as one, by places alone.

    rrf(record) = sum over the lists, over each place r (from 1) at which it stands there:   1 / (k + r)

Scores of the lists are not looked at, so lists whose scores cannot be compared (BM25, cosine, decay) may be fused.

Source: Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
Methods", SIGIR 2009; k = 60 is theirs.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from popoto.exceptions import QueryException
from popoto.memory.composite import Composite, PostFilter, composite_steps
from popoto.memory.number import is_number
from popoto.memory.ranking import refuse_misplaced
from popoto.orm import shards
from popoto.orm.model import Model

if TYPE_CHECKING:
    from popoto.orm.builder import QueryBuilder

PLACE = "_composite_score"  # what shards are merged by: places, since equal fused scores keep their order


def reciprocal_ranks(ranked_lists: Mapping[str, Iterable[Any] | None], k: float = 60) -> dict[str, float]:
    """Return record key -> fused score, best first; equal scores in the order in which they are first met.

    Args:
        ranked_lists: name -> records, best first. A record is a pair (key or instance, score), a key or an instance;
            twice in a list it counts twice. None is an empty list.
        k: >= 0; the higher it is, the less the first places stand out.
    Raises: QueryException: no list, a list that is none, an item that names no record, another k.
    """
    if not is_number(k) or k < 0:
        raise QueryException(f"fuse(k={k!r}): expected a finite number from 0 on; 60 is usual.")
    k = float(k)
    if not ranked_lists:
        raise QueryException("fuse(): expected at least one ranked list, as fuse(words=[...], vectors=[...]).")
    scores: dict[str, float] = {}
    for name, ranked in ranked_lists.items():
        if ranked is None:
            continue
        if isinstance(ranked, (str, bytes, Mapping)) or not isinstance(ranked, Iterable):
            raise QueryException(f"fuse({name}={ranked!r}): expected a list of (redis_key, score), best first.")
        for place, item in enumerate(ranked, start=1):
            key = _key_of(name, item)
            scores[key] = scores.get(key, 0.0) + 1 / (k + place)
    return dict(sorted(scores.items(), key=lambda pair: -pair[1]))  # sorted() keeps the order of equals


def fuse_steps(
    builder: QueryBuilder[Any], scores: Mapping[str, float], limit: int, post_filter: PostFilter | None
) -> Generator[Any, Any, list[Any]]:
    """Return the first `limit` of these records that exist and that the builder's filters and `post_filter` let by.

    Args:
        scores: of `reciprocal_ranks`; each result has its own in `_rrf_score`.
    Raises: TypeError: limit is no int. QueryException: post_filter is no function; the builder has an order.
    """
    refuse_misplaced(builder, "fuse()")
    if type(limit) is not int:
        raise TypeError(f"fuse(limit={limit!r}): expected a whole number.")
    if post_filter is not None and not callable(post_filter):
        raise QueryException(f"fuse(post_filter={post_filter!r}): expected a function (redis_key, score) -> bool.")
    meta = builder.model_class._meta
    places = {key: -float(place) for place, key in enumerate(scores) if meta.holds(key)}
    places = dict(shards.of_here(meta, places) or {})
    if not places:
        return []
    wanted = post_filter and (lambda key, _: post_filter(key, scores[key]))
    composite = Composite(builder, "SUM", None, 1.0, wanted)
    composite.add_given("rank", places)
    found: list[Any] = yield from composite_steps(composite, limit)
    for record in found:
        record._rrf_score = scores[record._saved_key]
    return found


def _key_of(name: str, item: Any) -> str:
    named = item[0] if isinstance(item, (tuple, list)) and len(item) == 2 else item
    if isinstance(named, Model):
        named = named._saved_key
    if isinstance(named, bytes):
        named = named.decode("utf-8", "surrogateescape")
    if not isinstance(named, str):
        raise QueryException(f"fuse({name}=...): expected (redis_key, score), a key or a saved instance, got {item!r}.")
    return named
