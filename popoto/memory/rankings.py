"""The public ranking calls, the same on `Model.query` and on a builder, each with its async twin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from popoto.memory.composite import PostFilter
from popoto.memory.why_not import WhyNot
from popoto.orm.drivers import adrive, drive

if TYPE_CHECKING:
    from popoto.memory.query import MemoryQueryBuilder


class Rankings:
    """Rankings by the memory fields. Called on `Model.query` they rank all records: a partitioned field then needs
    `filter()` first."""

    def _ranker(self) -> MemoryQueryBuilder[Any]:
        """Return the builder whose filters restrict what is ranked."""
        raise NotImplementedError

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
        return drive(self._ranker()._top_by_decay(field_name, n, decay_rate, base_score_field))

    async def async_top_by_decay(
        self,
        field_name: str | None = None,
        n: int = 10,
        decay_rate: float | None = None,
        base_score_field: str | None = None,
    ) -> list[Any]:
        """Await `top_by_decay()`."""
        return await adrive(self._ranker()._top_by_decay(field_name, n, decay_rate, base_score_field))

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
        steps = self._ranker()._composite_score(
            indexes, limit, aggregate, min_score, post_filter, co_occurrence_boost, temperature, similarity_boost,
            explain,
        )  # fmt: skip
        return drive(steps)

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
        steps = self._ranker()._composite_score(
            indexes, limit, aggregate, min_score, post_filter, co_occurrence_boost, temperature, similarity_boost,
            explain,
        )  # fmt: skip
        return await adrive(steps)

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
        steps = self._ranker()._why_not(
            record, indexes, limit, aggregate, min_score, post_filter, co_occurrence_boost, temperature,
            similarity_boost,
        )  # fmt: skip
        return drive(steps)

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
        steps = self._ranker()._why_not(
            record, indexes, limit, aggregate, min_score, post_filter, co_occurrence_boost, temperature,
            similarity_boost,
        )  # fmt: skip
        return await adrive(steps)

    def keyword_search(self, query_text: str, field: str | None = None, limit: int = 10) -> list[Any]:
        """Return the records that match the words best (BM25), best first, each with its `_bm25_score`.

        Args:
            field: a BM25Field; may be left out when the model has one.
        Raises: QueryException: no or several such fields, or a field of another kind.
        """
        return drive(self._ranker()._keyword_search(query_text, field, limit))

    async def async_keyword_search(self, query_text: str, field: str | None = None, limit: int = 10) -> list[Any]:
        """Await `keyword_search()`."""
        return await adrive(self._ranker()._keyword_search(query_text, field, limit))

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
        return drive(self._ranker()._fuse(ranked_lists, k, limit, post_filter))

    async def async_fuse(
        self, k: float = 60, limit: int = 10, post_filter: PostFilter | None = None, **ranked_lists: Any
    ) -> list[Any]:
        """Await `fuse()`."""
        return await adrive(self._ranker()._fuse(ranked_lists, k, limit, post_filter))
