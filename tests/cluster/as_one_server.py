"""The suite on a cluster: `POPOTO_TEST_CLUSTER=1 pytest tests/orm tests/memory tests/recipes`.

The tests look at keys as one server has them ("User:alice"). `UntaggedClient` puts the hash tag before them and takes
it off what the nodes answer. What is by nature of one server is skipped, with its reason.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from popoto import redis_db
from popoto.memory.bm25 import BM25Field
from popoto.orm import query, shards
from popoto.orm.builder import QueryBuilder
from popoto.orm.keys import escape, hash_tag
from popoto.orm.metaclass import _models
from tests.cluster.nodes import Cluster
from tests.conftest import Server, engine_binary

_OF_ONE_SERVER = {"info", "monitor", "config_get", "client_list", "memory_usage", "select", "connection_pool"}
_SPELLED = "it spells keys, in what records and calls give, as one server has them"
_ELSEWHERE = "its hook writes a key of its own, which lies in another slot; docs/cluster.md says how to name it"
_ASKED = "it asks for records by keys without a tag, at a level below the one where tags are put on"
SKIPPED = {
    "test_a_changed_key_is_refused_with_field_old_and_new_value": _SPELLED,
    "test_a_key_computed_by_pre_save_does_not_slip_past_the_guard": _SPELLED,
    "test_a_migrated_record_takes_everything_along": _SPELLED,
    "test_a_key_part_that_was_none_may_be_filled_in": _SPELLED,
    "test_keys_stand_behind_the_namespace_of_the_settings": _SPELLED,
    "test_a_filter_value_is_taken_as_the_fields_type": _SPELLED,
    "test_a_db_key_finds_its_record": _SPELLED,
    "test_the_metadata_names_the_fields_by_kind": _SPELLED,
    "test_a_model_without_a_key_has_an_auto_key_from_the_start": _SPELLED,
    "test_meta_key_name_is_the_name_in_the_keys": _SPELLED,
    "test_an_abstract_model_is_made_into_records_by_its_subclasses_only": _SPELLED,
    "test_fields_are_inherited_overridden_and_dropped": _SPELLED,
    "test_an_instance_knows_whether_and_where_it_is_stored": _SPELLED,
    "test_the_documented_keys": _SPELLED,
    "test_the_old_key_is_where_the_data_lies": _SPELLED,
    "test_a_value_set_later_moves_nothing_and_none_becomes_the_confidence": _SPELLED,
    "test_an_expired_record_is_in_no_answer_and_leaves_nothing_to_its_successor": _SPELLED,
    "test_the_data_of_records_whose_key_matches": _SPELLED,
    "test_a_partition_is_read_alone": _SPELLED,
    "test_whatever_happens_to_records_their_evidence_is_right": _SPELLED,
    "test_the_count_is_kept_in_an_ordered_set_for_ranking": _SPELLED,
    "test_a_weight_below_zero_counts_against_a_record": _SPELLED,
    "test_a_boost_makes_a_candidate": _SPELLED,
    "test_each_part_is_explained": _SPELLED,
    "test_post_filter_never_starves_the_result": _SPELLED,
    "test_why_not_says_what_kept_a_record_out": _SPELLED,
    "test_why_not_names_a_tie_that_the_key_decides": _SPELLED,
    "test_a_fingerprint_of_none_refuses_the_save": _SPELLED,
    "test_rankings_find_the_set": _SPELLED,
    "test_link_makes_an_edge_and_leaves_one_that_exists": _SPELLED,
    "test_one_way_edges_stand_on_one_side": _SPELLED,
    "test_a_node_has_no_edge_to_itself": _SPELLED,
    "test_a_record_that_is_not_stored_gets_no_edge": _SPELLED,
    "test_foreign_keys_in_the_way_are_refused": _SPELLED,
    "test_neighbours_that_have_expired_take_no_place": _SPELLED,
    "test_a_hop_is_one_round_trip_however_wide": _SPELLED,
    "test_a_record_keeps_its_edges_under_a_new_key": _SPELLED,
    "test_delete_takes_the_edges_along_on_all_sides": _SPELLED,
    "test_one_way_edges_follow_in_both_directions": _SPELLED,
    "test_records_stored_before_the_field_was_there_are_cleaned_up_too": _SPELLED,
    "test_a_value_that_the_server_refuses_refuses_the_batch": _SPELLED,
    "test_two_equal_unique_values_in_one_batch_are_refused": _SPELLED,
    "test_a_value_given_up_and_taken_is_not_free_for_a_third": _SPELLED,
    "test_raw_update_leaves_auto_now_alone_and_refuses_foreign_keys": _SPELLED,
    "test_delete_all_takes_this_model_and_no_other": _SPELLED,
    "test_expiries_are_checked": _SPELLED,
    "test_records_that_cannot_be_read_are_reported_and_left_as_they_are": _SPELLED,
    "test_a_unique_value_that_two_records_have_is_reported_and_the_rest_is_indexed": _SPELLED,
    "test_a_text_is_listed_once_from_its_first_record_to_its_last": _SPELLED,
    "test_one_key_twice_in_a_batch_is_refused_and_in_two_batches_the_later_one_counts": _SPELLED,
    "test_hooks_run_as_in_save_and_a_skipped_record_is_left_out": _ELSEWHERE,
    "test_an_update_runs_the_hooks_of_the_fields_it_names": _ELSEWHERE,
    "test_deletes_run_the_hooks": _ELSEWHERE,
    "test_a_generator_is_read_a_batch_at_a_time_and_its_instances_are_let_go": _SPELLED,
    "test_a_save_and_delete_of_the_models_own_are_called_for_each_record": _ELSEWHERE,
    "test_hooks_run_with_the_save_and_the_delete": _ELSEWHERE,
    "test_hooks_of_a_refused_save_run_nothing": _ELSEWHERE,
    "test_hooks_run_in_a_callers_pipeline_too": _ELSEWHERE,
    "test_a_hook_may_queue_any_value_a_client_takes": _ELSEWHERE,
    "test_a_walk_goes_on_at_its_place_whatever_came_or_went_meanwhile": _ASKED,
    "test_scores_of_given_records_come_in_one_call_without_those_that_are_gone": _ASKED,
    "test_a_deleted_record_leaves_none_of_its_words_in_any_key": _ASKED,
    "test_any_character_may_stand_in_a_term_or_a_key": _ASKED,
    "test_the_index_is_exact_after_any_history": _ASKED,
    "test_a_search_equals_scoring_everything_and_reads_only_what_can_matter": _ASKED,
    "test_a_store_of_equals_is_not_read_whole": _ASKED,
    "test_a_search_in_slices_finds_the_same": _ASKED,
    "test_writes_between_slices_are_seen_and_lose_nothing_that_stays": _ASKED,
    "test_filters_restrict_what_is_ranked": _ASKED,
    "test_offset_skips_the_best": _ASKED,
    "test_expired_records_never_appear": _ASKED,
    "test_scores_of_given_records_are_those_of_the_search": _ASKED,
    "test_scores_of_many_records_come_in_one_call": _ASKED,
    "test_an_index_without_exact_totals_still_answers_and_counts_on_the_next_save": _ASKED,
    "test_async_calls_give_the_same": _ASKED,
    "test_touch_does_not_revive_a_record_that_is_gone": "it counts all keys, those that are kept for repeats too",
}
_TAG = re.compile(rb"\{[\w.%~-]+\}:")
_KEY = re.compile(r"(?:\$\w+:)?([^:]+)(?::|$)")


def tagged(key: str) -> str:
    """Return a key of one server as a cluster has it; what is no model's key stays."""
    found = _KEY.match(key)
    names = {escape(name): name for name in list(_models)}
    if not found or found[1] not in names or _TAG.match(key.encode("utf-8", "surrogateescape")):
        return key
    front = hash_tag(names[found[1]])
    inner = key.rfind(f":{found[1]}:", found.end(1)) if key.startswith("$") else -1
    if inner > 0 and key[inner - 1] != "}" and not key.startswith("$KeyF"):  # a key of a record stands in it
        key = f"{key[: inner + 1]}{front}{key[inner + 1 :]}"
    return front + key


def _to_nodes(value: Any) -> Any:
    if isinstance(value, str):
        return tagged(value)
    if isinstance(value, bytes):
        with contextlib.suppress(UnicodeDecodeError):
            return tagged(value.decode()).encode()
        return value
    if isinstance(value, (list, tuple, set)):
        return type(value)(map(_to_nodes, value))
    if isinstance(value, dict):
        return {_to_nodes(name): item for name, item in value.items()}
    return value


def _from_nodes(value: Any) -> Any:
    if isinstance(value, bytes):
        return _TAG.sub(b"", value)
    if isinstance(value, str):
        return _TAG.sub(b"", value.encode()).decode()
    if isinstance(value, (list, tuple, set)):
        return type(value)(map(_from_nodes, value))
    if isinstance(value, dict):
        return {_from_nodes(name): _from_nodes(item) for name, item in value.items()}
    return value


class UntaggedClient:
    """The cluster's client, for tests that spell keys as one server has them."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def keys(self, pattern: Any = "*") -> Any:
        text = pattern if isinstance(pattern, str) else pattern.decode()
        found = []
        for one in {text, f"{{*}}:{text}"}:
            found += self._client.keys(one, target_nodes=redis.RedisCluster.PRIMARIES)
        return sorted({_from_nodes(key) for key in found})

    def scan_iter(self, match: Any = "*", **options: Any) -> Any:
        return iter(self.keys(match))

    def pipeline(self, *args: Any, **options: Any) -> Any:
        return self._client.pipeline()

    def __getattr__(self, name: str) -> Any:
        if name in _OF_ONE_SERVER:
            pytest.skip(f"the test looks at {name} of one server, and a cluster has several")
        method = getattr(self._client, name)
        if not callable(method):
            return method

        def called(*args: Any, **options: Any) -> Any:
            reply = method(*_to_nodes(args), **{name: _to_nodes(value) for name, value in options.items()})
            return _from_nodes(reply)

        return called


class ClusterAsServer(Server):
    """Three masters in the place of the one server of a test."""

    def __init__(self) -> None:
        self.cluster = Cluster(engine_binary())
        self.url = self.cluster.url

    def emptied(self) -> UntaggedClient:
        settings = redis_db._chosen
        if settings is None or {port for _, port in settings.nodes} != {node.port for node in self.cluster.nodes}:
            redis_db.configure_url(self.url)  # a new client asks every node for its table of commands
        redis_db._namespace = ""
        shards._entered.clear()
        self.cluster.flush()
        return UntaggedClient(redis_db.get_REDIS_DB())

    def __getattr__(self, name: str) -> Any:
        pytest.skip(f"the test asks for the {name} of one server, and a cluster has several")


def _without_tags(method: Any) -> Any:
    def keys(self: Any) -> Any:
        return _from_nodes(method(self))

    return keys


def _for_its_own_tests(call: Any, module: str) -> Any:
    """Let the tests of a module see the call's results without tags; others use its keys further."""

    def called(*args: Any, **options: Any) -> Any:
        found = call(*args, **options)
        return _from_nodes(found) if sys._getframe(1).f_globals["__name__"].endswith(module) else found

    return called


def _async_without_tags(method: Any) -> Any:
    async def keys(self: Any) -> Any:
        return _from_nodes(await method(self))

    return keys


@contextlib.contextmanager
def cluster_as_one_server() -> Iterator[ClusterAsServer]:
    """Start three masters; keys that queries give and take have no tag meanwhile."""
    server = ClusterAsServer()
    key_text = query._key_text
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(QueryBuilder, "keys", _without_tags(QueryBuilder.keys))
            patch.setattr(QueryBuilder, "async_keys", _async_without_tags(QueryBuilder.async_keys))
            patch.setattr(BM25Field, "search", staticmethod(_for_its_own_tests(BM25Field.search, "test_bm25")))
            patch.setattr(query, "_key_text", lambda key: tagged(key_text(key)))
            yield server
    finally:
        redis_db.close()
        server.cluster.remove()
