"""A sorted field that is partitioned by a relationship."""

from __future__ import annotations

import pytest

from popoto import KeyField, Model, Relationship, SortedField, redis_db


class Club(Model):
    name = KeyField()

    class Meta:
        key_name = "PartitionClub"


class Player(Model):
    name = KeyField()
    club = Relationship(model=Club, null=True)
    points = SortedField(type=int, partition_by="club")

    class Meta:
        key_name = "PartitionPlayer"


@pytest.fixture(params=["", "staging"])
def namespace(request, server, shared_server):
    if not request.param:
        yield ""
        return
    if not hasattr(shared_server, "socket"):
        pytest.skip("one server")
    redis_db.set_REDIS_DB_settings(env_partition_name=request.param, unix_socket_path=shared_server.socket)
    yield request.param
    redis_db.set_REDIS_DB_settings(env_partition_name="", unix_socket_path=shared_server.socket)


def test_a_partition_by_relationship_is_found_moved_and_kept_without_the_namespace(namespace):
    red, blue = Club.create(name="red:1"), Club.create(name="blue")
    for number in range(6):
        Player.create(name=f"p{number}", club=[red, blue, None][number % 3], points=number)

    moved = Player.query.get(name="p0")
    moved.club = blue
    moved.save(update_fields=["club"])
    moved.atomic_increment("points", 9)

    in_club = lambda club: [p.name for p in Player.query.filter(club=club, points__gte=0)]  # noqa: E731
    assert (in_club(red), in_club(blue.pk), in_club(None)) == (["p3"], ["p1", "p4", "p0"], ["p2", "p5"])
    assert Player.check_indexes()["total"] == 0
    sets = redis_db.scan_keys("*$SortF:PartitionPlayer:points:PartitionClub*")
    assert sets
    assert not any(b"staging" in key.partition(b"$")[2] for key in sets)
