"""The section "Index Maintenance" of the API reference."""

from __future__ import annotations

import asyncio

import pytest

from popoto import get_redis


@pytest.fixture
def users(town):
    """Five users, two of which were deleted past popoto."""
    town.User.bulk_create([town.User(user_id=f"u{n}", email=f"u{n}@x", age=n) for n in range(5)])
    get_redis().delete("User:u1", "User:u2")
    return town.User


def test_check_indexes_counts_by_index_type_and_writes_nothing(users):
    before = sorted(get_redis().keys())
    result = users.check_indexes()
    assert {"class_set", "key_fields", "sorted_fields", "geo_fields", "composite_indexes", "total"} <= set(result)
    assert result["class_set"] == 2 and result["sorted_fields"] == {"age": 2}
    assert isinstance(result["key_fields"], dict) and result["composite_indexes"] == {}
    assert result["total"] >= 4
    assert users.check_indexes(batch_size=1) == result
    assert sorted(get_redis().keys()) == before


def test_clean_indexes_removes_exactly_those(users):
    result = users.check_indexes()
    removed = users.clean_indexes()
    assert removed == result["total"]
    assert users.check_indexes()["total"] == 0
    assert users.clean_indexes(batch_size=1) == 0
    assert sorted(user.user_id for user in users.query.all()) == ["u0", "u3", "u4"]


def test_rebuild_indexes_returns_how_many_were_processed(users):
    get_redis().delete("$SortF:User:age")
    assert users.rebuild_indexes() == 3
    assert users.check_indexes()["total"] == 0
    assert [user.age for user in users.query.filter(age__gte=3)] == [3, 4]
    assert users.rebuild_indexes(batch_size=1) == 3


def test_the_async_counterparts_for_several_models_at_once(users, town):
    async def maintain_all_indexes():
        models = [users, town.Restaurant, town.Order]
        results = await asyncio.gather(*(model.async_check_indexes() for model in models))
        assert [bool(result["total"]) for result in results] == [True, False, False]
        assert results[0].get("sorted_fields", {}) == {"age": 2}
        assert await users.async_clean_indexes() == results[0]["total"]
        after = await users.async_check_indexes()
        assert after["total"] == 0
        assert await users.async_rebuild_indexes() == 3

    asyncio.run(maintain_all_indexes())
