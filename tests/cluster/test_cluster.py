"""A model on a cluster: settings, keys, calls, pipelines, pub/sub."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import redis

import popoto
from popoto import redis_db
from popoto.exceptions import ConnectionSettingsError
from popoto.orm.cluster_wire import slot_of
from popoto.orm.db_key import DB_key
from tests.cluster.models import Account
from tests.cluster.nodes import Cluster


def keys_of(cluster: Cluster) -> list[str]:
    return sorted(key.decode() for node in cluster.nodes for key in node.client.keys("*"))


def account(name: str, **values: Any) -> Account:
    return Account.create(name=name, email=f"{name}@example.org", **values)


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("redis+cluster://a:7000/3", "one database"),
        ("redis+cluster://a:7000?db=2", "one, number 0"),
        ("redis+cluster://a:7000,:7001", "host:port"),
        ("redis+cluster://a:seven", "cannot be read"),
        ("redis+cluster://a:7000?wrong=1", "wrong"),
    ],
)
def test_a_cluster_url_that_cannot_be_used_is_refused_with_a_reason(url: str, text: str) -> None:
    with pytest.raises(ConnectionSettingsError, match=text):
        redis_db.configure_url(url)


def test_a_cluster_url_names_nodes_user_and_options() -> None:
    redis_db.configure_url("rediss+cluster://me:secret@one:7000,[::1]:7001,three?socket_timeout=2")
    settings = redis_db._chosen
    assert settings is not None and settings.nodes == (("one", 7000), ("::1", 7001), ("three", 6379))
    assert {"username": "me", "password": "secret", "ssl": True, "socket_timeout": 2.0}.items() <= dict(
        settings.arguments
    ).items()
    assert redis_db.on_cluster()


def test_a_cluster_that_nobody_serves_is_a_connection_error() -> None:
    redis_db.configure_url("redis+cluster://127.0.0.1:1")
    assert not redis_db.check_connection()
    with pytest.raises(redis.ConnectionError, match=r"127\.0\.0\.1:1"):
        Account.query.count()


def test_all_keys_of_a_model_lie_in_one_slot(cluster: Cluster) -> None:
    account("ada", balance=3, city="Bonn").save()
    keys = keys_of(cluster)
    assert "{Account}:Account:ada" in keys and "{Account}:$IndexF:Account:city:Bonn" in keys
    assert {slot_of(key) for key in keys} == {slot_of("{Account}:")}


def test_no_value_and_no_name_can_forge_a_hash_tag(cluster: Cluster) -> None:
    class Odd(popoto.Model):
        name = popoto.KeyField()
        note = popoto.IndexedField(default="")

        class Meta:
            key_name = "}{b}od/d:"

    odd = Odd.create(name="{a}{x", note="}{y}")
    assert len({slot_of(key) for key in keys_of(cluster)}) == 1
    assert Odd.query.get(name="{a}{x") == odd
    assert Odd.query.get(db_key=odd.db_key) == odd
    assert Odd.query.filter(note="}{y}").all() == [odd]


def test_off_a_cluster_no_key_has_a_tag() -> None:
    redis_db.configure_url("redis://localhost:1")
    assert Account(name="ada").pk == "Account:ada"


def test_keys_stand_behind_tag_and_namespace(cluster: Cluster) -> None:
    redis_db._change(redis_db._chosen, "staging")
    try:
        ada = account("ada")
        assert ada.pk == "{Account}:staging:Account:ada"
        assert DB_key.from_redis_key(ada.pk) == ada.db_key == ["Account", "ada"]
        assert Account.query.get(redis_key=ada.pk) == ada
        assert b"{Account}:staging:Account:ada" in redis_db.scan_keys("Account:*")
    finally:
        redis_db._change(None, "")


def test_one_call_is_one_round_trip(cluster: Cluster, round_trips: Any) -> None:
    ada = account("ada", city="Bonn")
    for call in (
        lambda: ada.save(),
        lambda: ada.atomic_increment("balance", 2),
        lambda: Account.query.get(name="ada"),
        lambda: Account.query.filter(city="Bonn").all(),
        lambda: Account.query.count(),
        lambda: Account.query.get_many([ada.pk, "{Account}:Account:none"]),
    ):
        with round_trips() as trips:
            call()
        assert trips.count == 1


def test_a_script_that_a_node_does_not_know_is_sent_whole(cluster: Cluster) -> None:
    ada = account("ada")
    for node in cluster.nodes:
        node.client.script_flush()
    ada.atomic_increment("balance", 1)
    assert Account.query.get(name="ada").balance == 1
    for node in cluster.nodes:
        node.client.script_flush()

    async def count() -> int:
        return await Account.query.async_count()

    assert asyncio.run(count()) == 1


def test_a_unique_value_has_one_owner(cluster: Cluster) -> None:
    account("ada")
    with pytest.raises(popoto.ModelException, match="already exists"):
        Account.create(name="bob", email="ada@example.org")
    assert Account.query.count() == 1


def test_the_async_calls_give_the_same_in_several_loops(cluster: Cluster) -> None:
    async def work(number: int) -> list[str]:
        await asyncio.gather(
            *(Account.async_create(name=f"{number}-{i}", email=f"{number}-{i}", balance=i) for i in range(150))
        )
        return [a.name for a in await Account.query.filter(balance__gte=148).order_by("-balance").async_all()]

    assert asyncio.run(work(1)) == ["1-149", "1-148"]
    assert asyncio.run(work(2)) == ["2-149", "1-149", "2-148", "1-148"]
    assert Account.query.count() == 300


def test_a_callers_pipeline_takes_saves_of_several_models(cluster: Cluster) -> None:
    from tests.cluster.models import Owner

    pipeline = redis_db.get_REDIS_DB().pipeline()
    Account(name="ada", email="a").save(pipeline=pipeline)
    Owner(name="bob").save(pipeline=pipeline)
    Account(name="eve", email="e").save(pipeline=pipeline)
    assert len(pipeline.execute()) == 3

    async def more() -> None:
        queued = redis_db.get_async_client().pipeline()
        await Account(name="joe", email="j").async_save(pipeline=queued)
        await Owner(name="ann").async_save(pipeline=queued)
        await queued.execute()

    asyncio.run(more())
    assert sorted(a.name for a in Account.query.all()) == ["ada", "eve", "joe"]
    assert Owner.query.count() == 2


def test_a_repeat_is_answered_from_the_token_which_lies_in_the_same_slot(cluster: Cluster) -> None:
    ada = account("ada")
    ada.atomic_increment("balance", 5)
    tokens = [key for key in keys_of(cluster) if "$Token" in key]
    assert tokens and {slot_of(key) for key in tokens} == {slot_of("{Account}:")}


def test_delete_all_and_maintenance_see_the_keys_of_every_node(cluster: Cluster) -> None:
    from tests.cluster.models import Owner

    accounts = Account.bulk_create([Account(name=f"n{i}", email=f"e{i}", balance=i) for i in range(30)])
    Owner.create(name="other")
    cluster.owner(slot_of("{Account}:")).client.delete(accounts[3].pk)  # by hand: its entries are left
    assert Account.check_indexes()["total"] > 0
    assert Account.clean_indexes() > 0
    assert Account.check_indexes()["total"] == 0
    assert Account.rebuild_indexes() == 29
    assert Account.delete_all() == 29
    assert [key for key in keys_of(cluster) if key.startswith("{Account}") and "$Token" not in key] == []
    assert Owner.query.count() == 1


def test_messages_reach_a_subscriber_of_another_node(cluster: Cluster) -> None:
    got: list[Any] = []
    arrived = threading.Event()

    class News(popoto.Subscriber):
        sub_channel_names = ["news"]

        def handle(self, channel: str, data: Any) -> None:
            got.append(data)
            arrived.set()

    subscriber = News()
    running = threading.Thread(target=subscriber.run)
    running.start()
    try:
        for _ in range(50):
            if popoto.Publisher(channel_name="news").publish("hello") is not None and arrived.wait(0.1):
                break
        assert got and got[0] == "hello"
    finally:
        subscriber.close()
        running.join(5)


def test_the_health_check_scan_and_info_work(cluster: Cluster) -> None:
    account("ada")
    assert redis_db.check_connection()
    assert asyncio.run(redis_db.async_check_connection())
    assert b"{Account}:Account:ada" in redis_db.scan_keys("Account:*")
    assert b"{Account}:Account:ada" in asyncio.run(redis_db.async_scan_keys("Account:*"))
    redis_db.print_redis_info()
    asyncio.run(redis_db.async_print_redis_info())
