"""GeoField: a place is kept exactly, found by its distance, and never lost from its index."""

from __future__ import annotations

import asyncio
import math
import pickle
import random
import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from popoto.exceptions import ModelException, QueryException
from popoto.orm import selection
from popoto.orm.fields.geo import GeoField
from popoto.orm.fields.indexed import IndexedField
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.sorted import SortedField
from popoto.orm.fields.typed import IntField, StringField
from popoto.orm.geodesy import MAX_LATITUDE, UNITS_M, distance_m, geohash_score
from popoto.orm.model import Model

from .oracle import dump, indexes_agree, nothing_left

CENTRE = (40.7128, -74.0060)
latitudes = st.one_of(st.floats(-MAX_LATITUDE, MAX_LATITUDE), st.sampled_from([0.0, MAX_LATITUDE, -MAX_LATITUDE]))
longitudes = st.one_of(st.floats(-180, 180), st.sampled_from([0.0, 180.0, -180.0, 179.9999999, -179.9999999]))


class Shop(Model):
    name = KeyField()
    kind = IndexedField()
    stars = SortedField(type=int, default=0)
    note = StringField()
    location = GeoField()


class Depot(Model):
    name = KeyField()
    at = GeoField(null=False)
    size = IntField(default=1)

    class Meta:
        order_by = "-size"


def names(found):
    return [record.name for record in found]


# -- values ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [(40.5, -74), [40.5, -74], ("40.5", "-74"), GeoField.Coordinates(40.5, -74)],
    ids=["tuple", "list", "text", "own"],
)
def test_two_numbers_are_a_place_and_come_back_as_coordinates(server, value):
    Shop.create(name="a", location=value)
    found = Shop.query.get(name="a").location
    assert found == (40.5, -74.0) and type(found) is GeoField.Coordinates
    assert (found.latitude, found.longitude) == (40.5, -74.0) and type(found.longitude) is float
    assert Shop.query.filter(name="a")[0].location == found == Shop.query.values("location")[0]["location"]
    assert pickle.loads(pickle.dumps(found)) == found


def test_the_origin_is_a_place(server):
    Shop.create(name="a", location=(0, 0.0))
    assert bool(Shop.query.get(name="a").location)
    assert names(Shop.query.filter(location=(0.0, 0.0))) == ["a"]


@pytest.mark.parametrize("value", [None, (None, None), GeoField.Coordinates()], ids=["None", "Nones", "own"])
def test_no_place_reads_as_coordinates_of_none_and_has_no_index_entry(server, value):
    shop = Shop.create(name="a", location=value)
    assert shop.location == (None, None)
    found = Shop.query.get(name="a").location
    assert found == (None, None) and found.latitude is None and not found
    assert Shop(name="b").location == (None, None)
    indexes_agree(Shop)


def test_a_hash_without_the_field_has_no_place(server):
    shop = Shop.create(name="a", location=CENTRE)
    server.hdel(shop.pk, "location")
    assert Shop.query.get(name="a").location == (None, None)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ((95, 1), "a latitude is a number from -85.05112878"),
        ((-85.06, 1), "a latitude"),
        ((1, 180.001), "a longitude is a number from -180"),
        ((math.nan, 1), "a latitude"),
        ((1, math.inf), "a longitude"),
        ((1, None), "longitude is missing"),
        ((None, 1), "latitude is missing"),
        ((1,), "expected (latitude, longitude)"),
        ((1, 2, 3), "expected (latitude, longitude)"),
        ("1,2", "expected (latitude, longitude)"),
        ((True, 1), "got True"),
        (("north", 1), "expected float, got 'north'"),
    ],
    ids=str,
)
def test_what_is_no_place_is_refused_before_anything_is_written(server, value, said):
    with pytest.raises(ModelException, match="location") as refused:
        Shop(name="a", location=value)
    assert said in str(refused.value)
    shop = Shop.create(name="a", location=CENTRE)
    before = dump(server)
    shop.location = value
    with pytest.raises(ModelException):
        shop.save()
    with pytest.raises(ModelException):
        shop.save(update_fields=["location"])
    assert dump(server) == before


def test_a_field_that_is_not_null_wants_a_place(server):
    with pytest.raises(ModelException, match=r"Depot\.at has no place"):
        Depot.create(name="a")
    Depot.create(name="a", at=(1, 2))


def test_a_stored_value_that_is_no_place_is_an_error_that_names_the_key(server):
    shop = Shop.create(name="a", location=CENTRE)
    server.hset(shop.pk, "location", b"\x93\x01\x02\x03")
    with pytest.raises(ModelException, match=r"Shop:a.*location"):
        Shop.query.get(name="a")


def test_the_metadata_names_the_field():
    assert Shop._meta.geo_field_names == {"location"} and Shop._meta.indexed_field_names == {"kind"}


def test_a_filter_reads_a_place_of_whole_numbers_and_passes_over_corrupt_bytes(server):
    shop = Shop.create(name="a", location=(1, 2))
    server.hset(shop.pk, "location", b"\x82\xa9__tuple__\xc3\xacas_encodable\x92\x01\x02")
    near = {"location": (1, 2), "location_radius": 0.2, "location_with_distances": True}
    (found,) = Shop.query.filter(**near)
    assert found.location == (1.0, 2.0) and found._geo_distance == 0.0
    for corrupt in (b"\xc1", b"", b"\xc3", b"\x91\x01", b"\x82\xa9__tuple__\xc3\xacas_encodable\x92\xa1x\x02"):
        server.hset(shop.pk, "location", corrupt)
        assert Shop.query.filter(**near).all() == [] and Shop.query.count(**near) == 0


def test_a_filter_parameter_cannot_be_another_field():
    with pytest.raises(ModelException, match="home_radius: the name is a filter of the GeoField 'home'"):
        type(Model)(
            "Clash", (Model,), {"home": GeoField(), "home_radius": IntField(), "__qualname__": "<locals>.Clash"}
        )


def test_the_type_is_fixed():
    with pytest.raises(ModelException, match="always tuple"):
        GeoField(type=str)
    with pytest.raises(TypeError):
        GeoField(units="km")


# -- the sphere --------------------------------------------------------------------------------------------------------


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(latitude=latitudes, longitude=longitudes)
@example(latitude=-MAX_LATITUDE, longitude=-180.0)
@example(latitude=MAX_LATITUDE - 1e-9, longitude=180 - 1e-9)
def test_the_score_is_that_of_geoadd(server, latitude, longitude):
    server.delete("geo")
    server.geoadd("geo", (longitude, latitude, "here"))
    if (latitude + MAX_LATITUDE) / (2 * MAX_LATITUDE) < 1 and (longitude + 180) / 360 < 1:
        assert geohash_score(latitude, longitude) == server.zscore("geo", "here")
    else:  # GEOADD's cell lies outside the grid there; ours is the last one inside
        server.zadd("geo", {"here": geohash_score(latitude, longitude)})
        there = server.geopos("geo", "here")[0]
        assert distance_m((latitude, longitude), (there[1], there[0])) < 0.34


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(a=st.tuples(latitudes, longitudes), b=st.tuples(latitudes, longitudes))
def test_the_distance_is_that_of_geodist(server, a, b):
    server.delete("geo")
    server.zadd("geo", {"a": geohash_score(*a), "b": geohash_score(*b)})
    there = [(place[1], place[0]) for place in server.geopos("geo", "a", "b")]
    assert distance_m(*there) == pytest.approx(server.geodist("geo", "a", "b"), abs=1e-3)
    assert distance_m(a, b) == pytest.approx(server.geodist("geo", "a", "b"), abs=0.7)


# -- filters against brute force ---------------------------------------------------------------------------------------

SIZES = {"as-shipped": {}, "small": {"GATHER": 3, "SLICE": 40, "ROWS": 4, "READ_CHUNK": 3}}


@pytest.fixture(params=SIZES)
def sizes(request, monkeypatch):
    """The constants of slicing: as they are, and so small that rings, slices and the way by value all happen."""
    for name, value in SIZES[request.param].items():
        monkeypatch.setattr(selection, name, value)


def world(rnd, size):
    """Return places of all sorts: anywhere, near the poles, around the antimeridian, in a town, on one spot."""
    places = []
    for _ in range(size):
        sort = rnd.randrange(5)
        latitude, longitude = rnd.uniform(-MAX_LATITUDE, MAX_LATITUDE), rnd.uniform(-180, 180)
        if sort == 1:
            latitude = rnd.choice([1, -1]) * rnd.uniform(84, MAX_LATITUDE)
        elif sort == 2:
            latitude, longitude = (
                rnd.choice([0.0, MAX_LATITUDE, latitude]),
                rnd.choice([180.0, -180.0, 179.9999, -179.999]),
            )
        elif sort == 3:
            latitude, longitude = CENTRE[0] + rnd.gauss(0, 0.01), CENTRE[1] + rnd.gauss(0, 0.01)
        elif sort == 4:
            latitude, longitude = CENTRE
        places.append((latitude, longitude))
    return places


@pytest.mark.parametrize("seed", range(3))
def test_filters_find_who_brute_force_finds(server, sizes, seed):
    rnd = random.Random(seed)
    places = dict(zip((f"{n:03}" for n in range(150)), world(rnd, 150), strict=True))
    shops = {
        name: Shop.create(
            name=name, location=place, kind=rnd.choice("xy"), note=rnd.choice("pq"), stars=rnd.randrange(5)
        )
        for name, place in places.items()
    }
    for name in ("none", "nowhere"):
        shops[name] = Shop.create(name=name, kind="x", note="p")
    for _ in range(60):
        centre = rnd.choice([*places.values(), (rnd.uniform(-85, 85), rnd.choice([180.0, -180.0, 3.0]))])
        unit = rnd.choice(list(UNITS_M))
        metres = rnd.choice(
            [
                0.0,
                10 ** rnd.uniform(0, 7.4),
                distance_m(centre, rnd.choice(list(places.values()))) + rnd.uniform(-0.3, 0.3),
            ]
        )
        metres = abs(metres)
        given = {"location": centre, "location_radius": metres / UNITS_M[unit], "location_radius_unit": unit}
        metres = given["location_radius"] * UNITS_M[unit]
        distances = {name: distance_m(centre, place) for name, place in places.items()}
        if any(abs(metres - d) < 1e-6 and d > 0 for d in distances.values()):
            continue  # within a micrometre of the border the last digit of a sine decides
        more = rnd.choice([{}, {"kind": "x"}, {"note": "p"}, {"stars__gte": 2}, {"kind": "y", "note": "q"}])
        near = [
            name
            for name, d in distances.items()
            if d <= metres
            and all(getattr(shops[name], k.partition("__")[0]) == v for k, v in more.items() if "__" not in k)
            and shops[name].stars >= more.get("stars__gte", 0)
        ]
        query = Shop.query.filter(**given, **more)
        assert sorted(names(query)) == near
        assert query.count() == len(near) and query.exists() == bool(near)
        by_distance = sorted(near, key=lambda name: (round(distances[name], 5), f"Shop:{name}"))
        limit = rnd.choice([None, 1, 3, 20])
        told = query.filter(location_with_distances=True).limit(limit).all()
        assert [round(distances[name], 5) for name in names(told)] == [
            round(distances[n], 5) for n in by_distance[:limit]
        ]
        assert set(names(told)) <= set(near) and len(set(names(told))) == len(told)
        assert all(r._geo_distance == pytest.approx(distances[r.name] / UNITS_M[unit], abs=6e-5) for r in told)
        assert {record._geo_distance_unit for record in told} <= {unit}
        start = rnd.randrange(4)
        assert (
            names(query.filter(location_with_distances=True)[start : start + 3])
            == names(query.filter(location_with_distances=True).all())[start : start + 3]
        )
        keys = query.filter(location_with_distances=True).keys()
        assert sorted(keys) == sorted(f"Shop:{name}".encode() for name in near)
        starred = query.filter(location_with_distances=True).order_by("-stars").all()
        assert [s.stars for s in starred] == sorted((shops[n].stars for n in near), reverse=True)
        assert all(s._geo_distance_unit == unit for s in starred)


def test_the_stored_coordinates_decide_at_the_border_not_the_geohash(server):
    rnd = random.Random(7)
    wrong = 0
    for n in range(300):
        place = (CENTRE[0] + rnd.uniform(-1e-3, 1e-3), CENTRE[1] + rnd.uniform(-1e-3, 1e-3))
        Shop.create(name=str(n), location=place)
    distances = {shop.name: distance_m(CENTRE, shop.location) for shop in Shop.query.all()}
    for radius in (50.0, 61.7, 80.3):
        near = {name for name, d in distances.items() if d <= radius}
        found = Shop.query.filter(location=CENTRE, location_radius=radius)
        assert set(names(found)) == near and found.count() == len(near)
        by_geohash = server.geosearch(
            "$GeoF:Shop:location", longitude=CENTRE[1], latitude=CENTRE[0], radius=radius, unit="m"
        )
        wrong += len({key.decode().removeprefix("Shop:") for key in by_geohash} ^ near)
    assert wrong > 0, "the places of this test should make a difference"


def test_rings_put_a_crowd_in_the_right_order(server, monkeypatch):
    monkeypatch.setattr(selection, "GATHER", 3)
    rnd = random.Random(2)
    places = {str(n): (CENTRE[0] + rnd.gauss(0, 1e-4), CENTRE[1] + rnd.gauss(0, 1e-4)) for n in range(600)}
    Shop.bulk_create([Shop(name=name, location=place) for name, place in places.items()])
    order = sorted(places, key=lambda name: distance_m(CENTRE, places[name]))
    query = Shop.query.filter(location=CENTRE, location_radius=500, location_with_distances=True)
    for limit in (*range(1, 60), *range(60, 600, 17)):
        assert names(query.limit(limit)) == order[:limit]
        assert names(query[limit : limit + 5]) == order[limit : limit + 5]


# -- distances ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def town(server):
    for n in range(6):
        Shop.create(name=f"s{n}", location=(CENTRE[0] + (5 - n) * 0.001, CENTRE[1]), kind="xy"[n % 2], stars=n)
    return {"location": CENTRE, "location_radius": 0.4, "location_radius_unit": "km"}


def test_without_distances_records_come_by_key_and_carry_none(town):
    found = Shop.query.filter(**town).all()
    assert names(found) == ["s2", "s3", "s4", "s5"]
    assert not hasattr(found[0], "_geo_distance")


def test_with_distances_the_nearest_comes_first_each_with_its_distance(town):
    found = Shop.query.filter(**town, location_with_distances=True).all()
    assert names(found) == ["s5", "s4", "s3", "s2"]
    assert [record._geo_distance for record in found] == [0.0, 0.1112, 0.2225, 0.3337]
    assert {record._geo_distance_unit for record in found} == {"km"}
    assert names(Shop.query.filter(**town, location_with_distances=False)) == ["s2", "s3", "s4", "s5"]
    assert Shop.query.filter(**town, location_with_distances=True).first().name == "s5"


def test_an_order_of_ones_own_goes_before_distance(town):
    given = {**town, "location_with_distances": True}
    assert names(Shop.query.filter(**given).order_by("stars")) == ["s2", "s3", "s4", "s5"]
    assert names(Shop.query.filter(**given, limit=2, order_by="-name")) == ["s5", "s4"]
    for n in range(3):
        Depot.create(name=f"d{n}", at=(CENTRE[0] + n * 0.001, CENTRE[1]), size=n)
    found = Depot.query.filter(at=CENTRE, at_radius=1, at_radius_unit="km", at_with_distances=True).all()
    assert names(found) == ["d2", "d1", "d0"], "Meta.order_by counts as an order of one's own"
    assert [record._geo_distance for record in found] == [0.2225, 0.1112, 0.0]


def test_values_carry_the_distance_as_well(town):
    query = Shop.query.filter(**town, location_with_distances=True, limit=2)
    assert query.values("name").all() == [
        {"name": "s5", "_geo_distance": 0.0, "_geo_distance_unit": "km"},
        {"name": "s4", "_geo_distance": 0.1112, "_geo_distance_unit": "km"},
    ]
    assert query.values("location", "name")[0]["location"] == CENTRE
    assert Shop.query.filter(**town, limit=1).values("name").all() == [{"name": "s2"}]
    ordered = Shop.query.filter(**town, location_with_distances=True).order_by("note").values("name")
    assert [row["_geo_distance"] for row in ordered.limit(2)] == [0.3337, 0.2225]


def test_the_centre_may_be_given_by_parts_or_by_a_record(town):
    radius = {"location_radius": 0.4, "location_radius_unit": "km"}
    parts = {"location_latitude": CENTRE[0], "location_longitude": str(CENTRE[1])}
    assert names(Shop.query.filter(**parts, **radius)) == ["s2", "s3", "s4", "s5"]
    middle = Shop.query.get(name="s3")
    found = Shop.query.filter(location_member=middle, location_with_distances=True, **radius)
    assert found[0].name == "s3" and found[0]._geo_distance == 0.0 and len(found) == 6
    unsaved = Shop(name="not stored", location=CENTRE)
    assert names(Shop.query.filter(location_member=unsaved, location_radius=1)) == ["s5"]
    assert names(Shop.query.filter(**radius).filter(location=CENTRE)) == ["s2", "s3", "s4", "s5"]


@pytest.mark.parametrize(("unit", "radius"), [("m", 112), ("km", 0.112), ("ft", 370), ("mi", 0.07)], ids=str)
def test_units(town, unit, radius):
    found = Shop.query.filter(
        location=CENTRE, location_radius=radius, location_radius_unit=unit, location_with_distances=True
    )
    assert names(found) == ["s5", "s4"]
    assert found[1]._geo_distance == pytest.approx(111.226 / UNITS_M[unit], rel=1e-3)


def test_the_radius_is_one_metre_unless_said_otherwise(server):
    Shop.create(name="a", location=CENTRE)
    Shop.create(name="b", location=(CENTRE[0] + 0.8e-5, CENTRE[1]))
    Shop.create(name="c", location=(CENTRE[0] + 1.2e-5, CENTRE[1]))
    assert names(Shop.query.filter(location=CENTRE)) == ["a", "b"]


def test_isnull_tells_who_has_a_place(server):
    Shop.create(name="a", location=(0, 0))
    Shop.create(name="b")
    assert names(Shop.query.filter(location__isnull=True)) == ["b"]
    assert names(Shop.query.filter(location__isnull=False)) == ["a"]
    assert Shop.query.count(location__isnull=True) == Shop.query.count(location__isnull=False) == 1


BAD = {
    "has no centre": {"location_radius": 3},
    "has no centre: give location": {"location_with_distances": True},
    "expected (latitude, longitude), got [1, 2]": {"location": [1, 2]},
    "expected (latitude, longitude), got (1, 2, 3)": {"location": (1, 2, 3)},
    "got None. For records without a place use location__isnull=True": {"location": None},
    "is no place": {"location": (None, None)},
    "give both location_latitude= and location_longitude=": {"location_latitude": 1},
    "give both": {"location_longitude": 1},
    "has more than one centre": {"location": (1, 2), "location_latitude": 1, "location_longitude": 2},
    "expected a number, 0 or more, got -1": {"location": (1, 2), "location_radius": -1},
    "got nan": {"location": (1, 2), "location_radius": math.nan},
    "got '5'": {"location": (1, 2), "location_radius": "5"},
    "got True": {"location": (1, 2), "location_radius": True},
    "expected one of m, km, ft, mi, got 'miles'": {"location": (1, 2), "location_radius_unit": "miles"},
    "expected True or False, got 1": {"location": (1, 2), "location_with_distances": 1},
    "a latitude is a number": {"location": (95, 2)},
    "expected an instance of Shop, got 'Shop:a'": {"location_member": "Shop:a"},
    "has no place in 'location'": {"location_member": Shop(name="q")},
    "expected an instance of Shop, got <Depot": {"location_member": Depot(name="q", at=(1, 2))},
    "expected True or False, got 3": {"location__isnull": 3},
}


@pytest.mark.parametrize("said", BAD)
def test_a_filter_that_makes_no_sense_says_so(server, said):
    with pytest.raises(QueryException) as refused:
        Shop.query.filter(**BAD[said]).all()
    assert said in str(refused.value) and "location" in str(refused.value)
    with pytest.raises(QueryException):
        Shop.query.count(**BAD[said])


def test_an_unknown_parameter_lists_those_there_are(server):
    with pytest.raises(QueryException, match=r"location_member.*location_with_distances"):
        Shop.query.filter(location__near=(1, 2))
    info = Shop.get_info()["query_filters"]
    assert {"location", "location_latitude", "location_radius", "location_radius_unit", "location__isnull"} <= set(info)


# -- cost --------------------------------------------------------------------------------------------------------------


def test_a_filter_with_distances_order_and_limit_is_one_round_trip(town, round_trips):
    query = Shop.query.filter(**town, kind="y", location_with_distances=True, limit=2)
    with round_trips() as trips:
        assert names(query) == ["s5", "s3"]
    assert trips.count == 1
    with round_trips() as trips:
        assert Shop.query.count(**town, kind="y") == 2
    assert trips.count == 1


def test_the_nearest_of_many_are_found_without_looking_at_the_rest(server):
    rnd = random.Random(5)
    pipeline = server.pipeline()
    places = {}
    for n in range(6000):
        places[f"{n}"] = (CENTRE[0] + rnd.gauss(0, 0.05), CENTRE[1] + rnd.gauss(0, 0.05))
        Shop.create(name=f"{n}", location=places[f"{n}"], pipeline=pipeline)
    pipeline.execute()
    nearest = sorted(places, key=lambda name: distance_m(CENTRE, places[name]))
    server.config_resetstat()
    found = Shop.query.filter(
        location=CENTRE, location_radius=50, location_radius_unit="km", location_with_distances=True
    )
    assert names(found.limit(10)) == nearest[:10]
    calls = server.info("commandstats")
    assert calls["cmdstat_hget"]["calls"] < 500 and calls["cmdstat_hmget"]["calls"] == 10
    assert found.count() == 6000
    assert names(found.limit(3000)) == nearest[:3000], "more than one slice"
    assert names(found.filter(note=None).limit(5)) == nearest[:5]


# -- the index ---------------------------------------------------------------------------------------------------------


def test_the_index_follows_its_record(server):
    shop = Shop.create(name="a", location=CENTRE)
    stale = Shop.query.get(name="a")
    shop.location = (1, 2)
    shop.save()
    indexes_agree(Shop)
    assert names(Shop.query.filter(location=(1, 2))) == ["a"] and not Shop.query.filter(location=CENTRE)
    stale.note = "old instance"
    stale.save(update_fields=["note"])
    assert names(Shop.query.filter(location=(1, 2))) == ["a"]
    shop.name = "b"
    shop.save(migrate_key=True)
    indexes_agree(Shop)
    assert names(Shop.query.filter(location=(1, 2))) == ["b"]
    shop.location = None
    shop.save(update_fields=["location"])
    indexes_agree(Shop)
    shop.location = CENTRE
    shop.save()
    shop.atomic_increment("stars", 2)
    indexes_agree(Shop)
    shop.delete()
    nothing_left(server)


def test_an_expired_record_is_near_nobody(server):
    shop = Shop(name="a", location=CENTRE)
    shop._ttl = 1
    shop.save()
    Shop.create(name="b", location=CENTRE)
    server.pexpire(shop.pk, 1)
    server.zadd("$Expiry:Shop", {shop.pk: 1})
    time.sleep(0.01)
    query = Shop.query.filter(location=CENTRE, location_radius=5)
    assert names(query) == ["b"] and query.count() == 1
    assert names(query.filter(location_with_distances=True)) == ["b"]


def test_the_async_twins_answer_the_same(town):
    async def ask():
        query = Shop.query.filter(**town, location_with_distances=True)
        return (
            names(await query.limit(2).async_all()),
            await query.async_count(),
            [record.name async for record in query],
        )

    assert asyncio.run(ask()) == (["s5", "s4"], 4, ["s5", "s4", "s3", "s2"])
