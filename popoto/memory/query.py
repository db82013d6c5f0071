"""Query and QueryBuilder with the rankings of the memory fields."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, overload

from popoto.exceptions import QueryException
from popoto.memory.bm25 import BM25Field, bm25_field, search_steps
from popoto.memory.bm25_statistics import Known, known_steps
from popoto.memory.composite import Composite, PostFilter, composite_of, composite_steps
from popoto.memory.cyclic_ranking import top_by_decay_steps
from popoto.memory.fusion import PLACE, fuse_steps, reciprocal_ranks
from popoto.memory.ranking import TOP_MAX, Scored, read_ranked, wanted_of
from popoto.memory.rankings import Rankings
from popoto.memory.staging import staged_within, tracks
from popoto.memory.why_not import WhyNot, why_not_steps
from popoto.orm import shards
from popoto.orm.builder import QueryBuilder
from popoto.orm.building import T
from popoto.orm.merging import asked_each
from popoto.orm.q import Filter
from popoto.orm.query import Query, QueryOf
from popoto.orm.shortcuts import M

Ranked = Generator[Any, Any, list[Any]]


class MemoryQueryBuilder(Rankings, QueryBuilder[T]):
    """A QueryBuilder that also ranks; its filters restrict what is ranked."""

    def _ranker(self) -> MemoryQueryBuilder[T]:
        return self

    # -- the steps of the public calls ---------------------------------------------------------------------------------

    def _top_by_decay(self, field_name: str | None, n: int, rate: float | None, base: str | None) -> Ranked:
        return self._best(lambda: top_by_decay_steps(self, field_name, n, rate, base), "_decay_score", n, True)

    def _composite_score(
        self,
        indexes: Mapping[str, float] | None,
        limit: int,
        aggregate: str,
        min_score: float | None,
        post_filter: PostFilter | None,
        co_occurrence_boost: Mapping[str, float] | None,
        temperature: float,
        similarity_boost: Mapping[str, float] | None,
        explain: bool,
    ) -> Ranked:
        make = partial(
            self._composite, indexes, aggregate, min_score, post_filter, co_occurrence_boost, similarity_boost,
            temperature,
        )  # fmt: skip
        steps = partial(composite_steps, limit=limit, explain=explain)
        return self._best(lambda: steps(make()), "_composite_score", limit, post_filter is None)

    def _why_not(
        self,
        record: Any,
        indexes: Mapping[str, float] | None,
        limit: int,
        aggregate: str,
        min_score: float | None,
        post_filter: PostFilter | None,
        co_occurrence_boost: Mapping[str, float] | None,
        temperature: float,
        similarity_boost: Mapping[str, float] | None,
    ) -> Generator[Any, Any, WhyNot]:
        make = partial(
            self._composite, indexes, aggregate, min_score, post_filter, co_occurrence_boost, similarity_boost,
            temperature,
        )  # fmt: skip
        return self._alone(lambda: why_not_steps(make(), record, limit))

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
        boosts = {"co_occurrence_boost": co_occurrence_boost, "similarity_boost": similarity_boost}
        return composite_of(self, indexes, aggregate, min_score, post_filter, boosts, temperature)

    def _keyword_search(self, query_text: str, field: str | None, limit: int) -> Ranked:
        meta = self.model_class._meta
        known: Known = None
        if shards.are_many(meta) and shards.named(meta, self.exact()) is None:
            known = yield from known_steps(self.model_class, self._bm25(field), query_text)
        make = partial(self._keyword_steps, query_text, field, limit, known)
        return (yield from self._best(make, "_bm25_score", limit))

    def _fuse(self, ranked_lists: Mapping[str, Any], k: float, limit: int, post_filter: PostFilter | None) -> Ranked:
        scores = reciprocal_ranks(ranked_lists, k)
        return self._best(lambda: fuse_steps(self, scores, limit, post_filter), PLACE, limit)

    def _keyword_steps(self, query_text: str, field: str | None, limit: int, known: Known) -> Ranked:
        name = self._bm25(field).name
        limit = wanted_of(self, "keyword_search(limit", limit)
        where = yield from self.where_steps()
        scored = yield from search_steps(self.model_class, name, query_text, limit, where=where, known=known)
        ranked: Scored = [(key.encode(), score, None) for key, score in scored]
        return (yield from read_ranked(self.model_class, ranked, {"calls": 0}, "_bm25_score"))

    def _bm25(self, name: str | None) -> BM25Field:
        """Return the BM25Field of that name, or the only one."""
        names = [n for n, f in self.model_class._meta.fields.items() if isinstance(f, BM25Field)]
        if name:
            return bm25_field(self.model_class, name)
        if len(names) != 1:
            have = ", ".join(names) or "none"
            raise QueryException(f"{self.model_class.__name__} has not one BM25Field but {have}; name it with field=.")
        return bm25_field(self.model_class, names[0])

    def _best(self, make: Callable[[], Ranked], score: str, n: int, at_once: bool = False) -> Ranked:
        """Return what the steps of `make` rank first, of all shards of the model; tell the model who is handed out.

        Args:
            at_once: what the server ranks is the result as it is, so that it can be told in the same call.
        """
        meta = self.model_class._meta
        at_once = at_once and type(n) is int and n <= TOP_MAX
        if at_once and self._track and tracks(self.model_class) and not shards.is_sharded(meta):
            found, staged = yield from staged_within(self.model_class, make())
            ranked = [found]
        else:
            ranked, staged = (yield from asked_each(meta, self.exact(), make)), False
        n = n if self._limit is None else min(n, self._limit)
        found = ranked[0] if len(ranked) == 1 else shards.merged(ranked, score, n)
        if staged or not self._track:
            return found
        for keys in shards.lists(meta, [record._saved_key for record in found]):
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


class MemoryQuery(Rankings, Query[M]):
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

    def _ranker(self) -> MemoryQueryBuilder[M]:
        return MemoryQueryBuilder(self.model_class)


class MemoryQueryOf(QueryOf):
    """The type of `Model.query` for type checkers: a MemoryQuery of that very model."""

    def __get__(self, instance: object, owner: type[M]) -> MemoryQuery[M]:
        raise NotImplementedError
