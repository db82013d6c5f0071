"""Query and QueryBuilder with the rankings of the memory fields."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from popoto.exceptions import QueryException
from popoto.memory.bm25 import BM25Field, search_steps
from popoto.memory.composite import Composite, PostFilter, composite_of, composite_steps
from popoto.memory.cyclic_ranking import top_by_decay_steps
from popoto.memory.fusion import PLACE, fuse_steps, reciprocal_ranks
from popoto.memory.why_not import WhyNot, why_not_steps
from popoto.orm import shards
from popoto.orm.builder import QueryBuilder
from popoto.orm.building import T
from popoto.orm.commands import Command, hash_of
from popoto.orm.drivers import adrive, drive
from popoto.orm.q import Filter
from popoto.orm.query import Query, QueryOf
from popoto.orm.related import together
from popoto.orm.shortcuts import M

Ranked = Generator[Any, Any, list[Any]]


class MemoryQueryBuilder(QueryBuilder[T]):
    """A QueryBuilder that also ranks; its filters restrict what is ranked."""

    def top_by_decay(
        self,
        field_name: str | None = None,
        n: int = 10,
        decay_rate: float | None = None,
        base_score_field: str | None = None,
    ) -> list[Any]:
        """Return the n records with the highest time-decayed score, best first, each with its `_decay_score`.

            score = base * max(days since last touched, 0.01) ^ -decay_rate

        Exact, without reading every record; equal scores by descending key.

        Args:
            field_name: a DecayingSortedField; may be left out when the model has one.
            n: at most this many.
            decay_rate, base_score_field: instead of the field's own, for this call.
        Raises: QueryException: no or several such fields, a field of another kind, a partition without a filter.
        """
        return drive(self._top_by_decay(field_name, n, decay_rate, base_score_field))

    async def async_top_by_decay(
        self,
        field_name: str | None = None,
        n: int = 10,
        decay_rate: float | None = None,
        base_score_field: str | None = None,
    ) -> list[Any]:
        """Await `top_by_decay()`."""
        return await adrive(self._top_by_decay(field_name, n, decay_rate, base_score_field))

    def composite_score(
        self,
        indexes: Mapping[str, float] | None = None,
        limit: int = 10,
        aggregate: str = "SUM",
        min_score: float | None = None,
        post_filter: PostFilter | None = None,
        co_occurrence_boost: Mapping[str, float] | None = None,
        temperature: float = 1.0,
        similarity_boost: Mapping[str, float] | None = None,
        explain: bool = False,
    ) -> list[Any]:
        """Return the `limit` records with the highest weighted composite of several signals, best first.

        Exact, in one round trip, without reading every record. Each result has its score in `_composite_score`.

        Args:
            indexes: name -> weight, any finite number. Names: decaying, confidence and sorted fields, "access_count"
                (AccessTrackerMixin), "priority" (WriteFilterMixin).
            limit: 0 or less gives [].
            aggregate: "SUM", "MIN" or "MAX". A signal that does not hold a record counts 0; for MIN it does not count.
            min_score: lowest composite (before the temperature) that counts.
            post_filter: (redis key, shown score) -> bool; candidates are drawn until `limit` survive.
            co_occurrence_boost, similarity_boost: redis key -> score, further signals of weight 1.
            temperature: > 0; shown scores are divided by it.
            explain: True puts the part of each signal into `_score_parts` of each result (one round trip more).
        Raises: QueryException: an unknown signal, an argument out of range, a partition without an exact filter.
        """
        make = partial(
            self._composite, indexes, aggregate, min_score, post_filter, co_occurrence_boost, similarity_boost,
            temperature,
        )  # fmt: skip
        return drive(self._best(lambda: composite_steps(make(), limit, explain), "_composite_score", limit))

    async def async_composite_score(
        self,
        indexes: Mapping[str, float] | None = None,
        limit: int = 10,
        aggregate: str = "SUM",
        min_score: float | None = None,
        post_filter: PostFilter | None = None,
        co_occurrence_boost: Mapping[str, float] | None = None,
        temperature: float = 1.0,
        similarity_boost: Mapping[str, float] | None = None,
        explain: bool = False,
    ) -> list[Any]:
        """Await `composite_score()`."""
        make = partial(
            self._composite, indexes, aggregate, min_score, post_filter, co_occurrence_boost, similarity_boost,
            temperature,
        )  # fmt: skip
        return await adrive(self._best(lambda: composite_steps(make(), limit, explain), "_composite_score", limit))

    def why_not(
        self,
        record: Any,
        indexes: Mapping[str, float] | None = None,
        limit: int = 10,
        aggregate: str = "SUM",
        min_score: float | None = None,
        post_filter: PostFilter | None = None,
        co_occurrence_boost: Mapping[str, float] | None = None,
        temperature: float = 1.0,
        similarity_boost: Mapping[str, float] | None = None,
    ) -> WhyNot:
        """Return what keeps a record out of `composite_score` with the same arguments, and how far it is.

        A diagnosis, not for hot paths: it scores every candidate.

        Args:
            record: an instance or a Redis key.
        """
        make = partial(
            self._composite, indexes, aggregate, min_score, post_filter, co_occurrence_boost, similarity_boost,
            temperature,
        )  # fmt: skip
        found: WhyNot = drive(self._alone(lambda: why_not_steps(make(), record, limit)))
        return found

    async def async_why_not(
        self,
        record: Any,
        indexes: Mapping[str, float] | None = None,
        limit: int = 10,
        aggregate: str = "SUM",
        min_score: float | None = None,
        post_filter: PostFilter | None = None,
        co_occurrence_boost: Mapping[str, float] | None = None,
        temperature: float = 1.0,
        similarity_boost: Mapping[str, float] | None = None,
    ) -> WhyNot:
        """Await `why_not()`."""
        make = partial(
            self._composite, indexes, aggregate, min_score, post_filter, co_occurrence_boost, similarity_boost,
            temperature,
        )  # fmt: skip
        return await adrive(self._alone(lambda: why_not_steps(make(), record, limit)))

    def _composite(
        self,
        indexes: Any,
        aggregate: str,
        min_score: float | None,
        post_filter: PostFilter | None,
        co_occurrence_boost: Mapping[str, float] | None,
        similarity_boost: Mapping[str, float] | None,
        temperature: float,
    ) -> Composite:
        meta = self.model_class._meta
        boosts = {
            "co_occurrence_boost": shards.of_here(meta, co_occurrence_boost),
            "similarity_boost": shards.of_here(meta, similarity_boost),
        }
        return composite_of(self, indexes, aggregate, min_score, post_filter, boosts, temperature)

    def keyword_search(self, query_text: str, field: str | None = None, limit: int = 10) -> list[Any]:
        """Return the records that match the words best (BM25), best first, each with its `_bm25_score`.

        Args:
            field: a BM25Field; may be left out when the model has one.
        Raises: QueryException: no or several such fields, or a field of another kind.
        """
        return drive(self._best(lambda: self._keyword_steps(query_text, field, limit), "_bm25_score", limit))

    async def async_keyword_search(self, query_text: str, field: str | None = None, limit: int = 10) -> list[Any]:
        """Await `keyword_search()`."""
        return await adrive(self._best(lambda: self._keyword_steps(query_text, field, limit), "_bm25_score", limit))

    def fuse(
        self, k: float = 60, limit: int = 10, post_filter: PostFilter | None = None, **ranked_lists: Any
    ) -> list[Any]:
        """Return the records that several ranked lists put first (reciprocal rank fusion), each with its `_rrf_score`.

            score = sum over the lists of 1 / (k + place)

        Filters apply, records that are gone take no place; equal scores in the order in which they are first met.

        Args:
            k: >= 0; the higher it is, the less the first places stand out.
            limit: 0 or less gives [].
            post_filter: (redis key, fused score) -> bool; `limit` of those it lets through are returned.
            ranked_lists: name=list, best first, of (redis_key or instance, score), keys or instances; None is empty.
        Raises: QueryException: no list, or an argument out of range.
        """
        return drive(self._fuse(ranked_lists, k, limit, post_filter))

    async def async_fuse(
        self, k: float = 60, limit: int = 10, post_filter: PostFilter | None = None, **ranked_lists: Any
    ) -> list[Any]:
        """Await `fuse()`."""
        return await adrive(self._fuse(ranked_lists, k, limit, post_filter))

    def _fuse(self, ranked_lists: Mapping[str, Any], k: float, limit: int, post_filter: PostFilter | None) -> Ranked:
        scores = reciprocal_ranks(ranked_lists, k)
        return self._best(lambda: fuse_steps(self, scores, limit, post_filter), PLACE, limit)

    def _keyword_steps(self, query_text: str, field: str | None, limit: int) -> Generator[Any, Any, list[Any]]:
        name = field or self._only_bm25()
        where = yield from self.where_steps()
        scored = yield from search_steps(self.model_class, name, query_text, limit, where=where)
        found = yield from self.read_steps([key for key, _ in scored])
        for key, score in scored:
            if key in found:
                found[key]._bm25_score = score
        return list(found.values())

    def _only_bm25(self) -> str:
        names = [n for n, f in self.model_class._meta.fields.items() if isinstance(f, BM25Field)]
        if len(names) != 1:
            have = ", ".join(names) or "none"
            raise QueryException(f"{self.model_class.__name__} has not one BM25Field but {have}; name it with field=.")
        return names[0]

    def _top_by_decay(self, field_name: str | None, n: int, rate: float | None, base: str | None) -> Ranked:
        return self._best(lambda: top_by_decay_steps(self, field_name, n, rate, base), "_decay_score", n)

    def _best(self, make: Callable[[], Ranked], score: str, n: int) -> Ranked:
        """Return what the steps of `make` rank first, of all shards of the model; tell the model who is handed out."""
        meta = self.model_class._meta
        ranked = yield from shards.spread(meta, self.exact(), make)
        found = ranked[0] if len(ranked) == 1 else shards.merged(ranked, score, n)
        for keys in shards.lists(meta, [record._saved_key for record in found]) if self._track else ():
            command = self.model_class._returned_command(keys)
            if command is not None:
                yield command
        return found

    def _alone(self, make: Callable[[], Generator[Any, Any, Any]]) -> Generator[Any, Any, Any]:
        """Run the steps of `make` in the one shard that the filters name, if the model has several.

        Raises: QueryException: they name none.
        """
        return (yield from shards.alone(self.model_class._meta, self.exact(), make))

    def where_steps(self) -> Generator[Any, Any, list[Any]]:
        """Return the filters as conditions that the server answers exactly (lib_where.lua)."""
        whole = self.selection().whole()
        yield from whole.settled()
        if whole.compiled.tests or whole.shared:
            keys = yield from whole.record_keys()
            return ["keys", *keys]
        return whole.compiled.where

    def read_steps(self, keys: list[str]) -> Generator[Any, Any, dict[str, Any]]:
        """Read these records in one round trip; return key -> instance, without those that vanished."""
        model = self.model_class
        commands: list[Command[Any]] = [Command(("HGETALL", key)) for key in keys]
        replies = (yield commands) if commands else []
        found = {key: model._hydrated(key, hash_of(raw)) for key, raw in zip(keys, replies, strict=True) if raw}
        together(model, found.values())
        return found


class MemoryQuery(Query[M]):
    """`Model.query`: the ORM's lookups and the rankings of the memory fields."""

    builder_class = MemoryQueryBuilder

    if TYPE_CHECKING:
        # what a chain begins with, as the builder that ranks
        def _builder(self) -> MemoryQueryBuilder[M]: ...
        @overload
        def filter(self, *args: Filter, values: tuple[str, ...], **kw: Any) -> MemoryQueryBuilder[dict[str, Any]]: ...
        @overload
        def filter(self, *args: Filter, values: None = None, **kw: Any) -> MemoryQueryBuilder[M]: ...
        def filter(self, *args: Filter, **kw: Any) -> Any: ...
        def exclude(self, *args: Filter, **kwargs: Any) -> MemoryQueryBuilder[M]: ...
        def limit(self, n: int | None) -> MemoryQueryBuilder[M]: ...
        def no_track(self) -> MemoryQueryBuilder[M]: ...
        def prefetch(self, *paths: str) -> MemoryQueryBuilder[M]: ...

    def top_by_decay(
        self,
        field_name: str | None = None,
        n: int = 10,
        decay_rate: float | None = None,
        base_score_field: str | None = None,
    ) -> list[Any]:
        """Rank all records; see MemoryQueryBuilder.top_by_decay. A partitioned field needs `filter()` first."""
        return MemoryQueryBuilder(self.model_class).top_by_decay(field_name, n, decay_rate, base_score_field)

    async def async_top_by_decay(
        self,
        field_name: str | None = None,
        n: int = 10,
        decay_rate: float | None = None,
        base_score_field: str | None = None,
    ) -> list[Any]:
        """Await `top_by_decay()`."""
        builder: MemoryQueryBuilder[M] = MemoryQueryBuilder(self.model_class)
        return await builder.async_top_by_decay(field_name, n, decay_rate, base_score_field)

    def composite_score(
        self,
        indexes: Mapping[str, float] | None = None,
        limit: int = 10,
        aggregate: str = "SUM",
        min_score: float | None = None,
        post_filter: PostFilter | None = None,
        co_occurrence_boost: Mapping[str, float] | None = None,
        temperature: float = 1.0,
        similarity_boost: Mapping[str, float] | None = None,
        explain: bool = False,
    ) -> list[Any]:
        """Rank all records; see MemoryQueryBuilder.composite_score. A partitioned field needs `filter()` first."""
        return MemoryQueryBuilder(self.model_class).composite_score(
            indexes, limit, aggregate, min_score, post_filter, co_occurrence_boost, temperature, similarity_boost,
            explain,
        )  # fmt: skip

    async def async_composite_score(
        self,
        indexes: Mapping[str, float] | None = None,
        limit: int = 10,
        aggregate: str = "SUM",
        min_score: float | None = None,
        post_filter: PostFilter | None = None,
        co_occurrence_boost: Mapping[str, float] | None = None,
        temperature: float = 1.0,
        similarity_boost: Mapping[str, float] | None = None,
        explain: bool = False,
    ) -> list[Any]:
        """Await `composite_score()`."""
        return await MemoryQueryBuilder(self.model_class).async_composite_score(
            indexes, limit, aggregate, min_score, post_filter, co_occurrence_boost, temperature, similarity_boost,
            explain,
        )  # fmt: skip

    def why_not(self, record: Any, indexes: Mapping[str, float] | None = None, limit: int = 10, **given: Any) -> WhyNot:
        """Say what keeps a record out of `composite_score`; see MemoryQueryBuilder.why_not."""
        return MemoryQueryBuilder(self.model_class).why_not(record, indexes, limit, **given)

    async def async_why_not(
        self, record: Any, indexes: Mapping[str, float] | None = None, limit: int = 10, **given: Any
    ) -> WhyNot:
        """Await `why_not()`."""
        return await MemoryQueryBuilder(self.model_class).async_why_not(record, indexes, limit, **given)

    def keyword_search(self, query_text: str, field: str | None = None, limit: int = 10) -> list[Any]:
        """Search all records; see MemoryQueryBuilder.keyword_search."""
        return MemoryQueryBuilder(self.model_class).keyword_search(query_text, field, limit)

    async def async_keyword_search(self, query_text: str, field: str | None = None, limit: int = 10) -> list[Any]:
        """Await `keyword_search()`."""
        return await MemoryQueryBuilder(self.model_class).async_keyword_search(query_text, field, limit)

    def fuse(
        self, k: float = 60, limit: int = 10, post_filter: PostFilter | None = None, **ranked_lists: Any
    ) -> list[Any]:
        """Fuse ranked lists; see MemoryQueryBuilder.fuse."""
        return MemoryQueryBuilder(self.model_class).fuse(k, limit, post_filter, **ranked_lists)

    async def async_fuse(
        self, k: float = 60, limit: int = 10, post_filter: PostFilter | None = None, **ranked_lists: Any
    ) -> list[Any]:
        """Await `fuse()`."""
        return await MemoryQueryBuilder(self.model_class).async_fuse(k, limit, post_filter, **ranked_lists)


class MemoryQueryOf(QueryOf):
    """The type of `Model.query` for type checkers: a MemoryQuery of that very model."""

    def __get__(self, instance: object, owner: type[M]) -> MemoryQuery[M]:
        raise NotImplementedError
