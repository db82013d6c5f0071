"""Sections "Version introspection", "PubSub", "Utility Functions", "Testing" and "Exceptions" of the API reference."""

from __future__ import annotations

import importlib
import logging

import pytest

import popoto
from popoto import (
    KeyMutationError,
    ModelException,
    PopotoException,
    Publisher,
    PublisherException,
    QueryException,
    Subscriber,
    SubscriberException,
)
from popoto import redis_db as database
from popoto.redis_db import check_connection, get_REDIS_DB, scan_keys, set_REDIS_DB_settings


def test_the_version_is_a_text():
    assert isinstance(popoto.__version__, str) and popoto.__version__


# -- publish and subscribe ---------------------------------------------------------------------------------------------


class NewsPublisher(Publisher):
    pass


class NewsSubscriber(Subscriber):
    sub_channel_names = ["NewsPublisher"]

    def pre_handle(self, channel, data, *args, **kwargs):
        self.seen = [("before", channel)]

    def handle(self, channel, data, *args, **kwargs):
        self.seen.append((channel, data))


def test_a_message_goes_from_a_publisher_to_a_subscriber(server):
    publisher, subscriber = NewsPublisher(), NewsSubscriber()
    assert publisher.channel_name == "NewsPublisher"
    subscriber()  # takes the confirmation of the subscription, if it is next
    assert publisher.publish({"title": "open", "n": 1}) == 1
    for _ in range(100):
        subscriber()
        if getattr(subscriber, "seen", None):
            break
    assert subscriber.seen == [("before", "NewsPublisher"), ("NewsPublisher", {"title": "open", "n": 1})]


def test_a_channel_name_can_be_given_and_changed(server):
    publisher = NewsPublisher(channel_name="weather")
    assert publisher.channel_name == "weather"
    publisher.channel_name = "sports"
    assert publisher.channel_name == "sports"
    assert publisher.publish({"n": 1}, channel_name="elsewhere") == 0
    pipeline = get_REDIS_DB().pipeline()
    assert publisher.publish({"n": 1}, pipeline=pipeline) is pipeline


# -- utilities ---------------------------------------------------------------------------------------------------------


def test_the_connection_can_be_reached_and_reset(server):
    assert get_REDIS_DB().ping() is True
    assert check_connection() is True
    path = server.connection_pool.connection_kwargs["path"]
    set_REDIS_DB_settings(unix_socket_path=path, db=1)
    assert get_REDIS_DB().connection_pool.connection_kwargs["db"] == 1
    set_REDIS_DB_settings(unix_socket_path="/nowhere/at/all")
    assert check_connection() is False


def test_scan_keys_finds_keys_by_a_pattern(server, town):
    town.User.create(user_id="u1", email="e")
    town.User.create(user_id="u2", email="f")
    assert {b"User:u1", b"User:u2"} <= set(scan_keys("User:u?"))
    assert scan_keys("*:active") == []


def test_print_redis_info_logs_to_its_logger(server, caplog):
    with caplog.at_level(logging.INFO, logger="POPOTO-REDIS_DB"):
        assert database.print_redis_info() is None
    assert caplog.records and all(record.name == "POPOTO-REDIS_DB" for record in caplog.records)


def test_enable_error_reporting_does_nothing_without_a_dsn(monkeypatch):
    monkeypatch.delenv("POPOTO_SENTRY_DSN", raising=False)
    assert popoto.enable_error_reporting() is None


def test_the_test_helpers_switch_to_a_test_database(server):
    from popoto.testing import flush_test_db, use_test_db

    get_REDIS_DB().set("mine", "1")
    use_test_db(db=15)
    assert get_REDIS_DB().connection_pool.connection_kwargs["db"] == 15
    get_REDIS_DB().set("theirs", "1")
    flush_test_db()
    assert get_REDIS_DB().dbsize() == 0
    assert server.get("mine") == b"1"


# -- exceptions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("ModelException", "popoto.exceptions"),
        ("KeyMutationError", "popoto.exceptions"),
        ("QueryException", "popoto.models.query"),
        ("PublisherException", "popoto.pubsub.publisher"),
        ("SubscriberException", "popoto.pubsub.subscriber"),
        ("PopotoException", "popoto.redis_db"),
    ],
)
def test_an_exception_is_one_class_on_every_path(name, path):
    assert getattr(importlib.import_module(path), name) is getattr(popoto, name)


def test_the_tree_of_exceptions():
    assert issubclass(KeyMutationError, ModelException)
    for error in (ModelException, QueryException, PublisherException, SubscriberException):
        assert issubclass(error, PopotoException) and issubclass(error, Exception)


def test_a_changed_key_is_an_error_until_it_is_meant(restaurants):
    instance = restaurants.Restaurant.query.get(name="Taco Town")
    instance.name = "new_name"
    try:
        instance.save()
        raise AssertionError("the key changed without a word")
    except KeyMutationError:
        instance.save(migrate_key=True)
    assert restaurants.Restaurant.query.get(name="new_name").cuisine == "Mexican"
