"""DatetimeField: times as they were given, aware and naive, and times that fill themselves."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest

from popoto import _clock
from popoto.exceptions import ModelException
from popoto.orm.fields.base import Field
from popoto.orm.fields.datetime import DatetimeField
from popoto.orm.fields.indexed import IndexedField
from popoto.orm.fields.key import KeyField
from popoto.orm.fields.sorted import SortedField
from popoto.orm.model import Model

UTC = timezone.utc
INDIA = timezone(timedelta(hours=5, minutes=30))


class Meeting(Model):
    name = KeyField()
    at = DatetimeField()
    made = DatetimeField(auto_now_add=True, tz=UTC)
    changed = DatetimeField(auto_now=True)
    note = Field()


@pytest.mark.parametrize(
    "at",
    [
        datetime(2026, 3, 2, 12, 30, 1, 5),
        datetime(1, 1, 1),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2026, 3, 2, 12, tzinfo=INDIA),
        datetime(2026, 3, 2, 12, tzinfo=timezone(-timedelta(hours=3, seconds=7))),
        datetime(2026, 7, 1, 2, 30, tzinfo=ZoneInfo("Europe/Paris")),
    ],
    ids=str,
)
def test_what_is_stored_is_what_comes_back_the_offset_included(server, at):
    Meeting.create(name="a", at=at)
    found = Meeting.query.get(name="a").at
    assert found == at and found.utcoffset() == at.utcoffset() and (found.tzinfo is None) == (at.tzinfo is None)
    assert Meeting.query.values("at")[0]["at"] == found
    assert Meeting.query.filter(at=at).count() == 1


def test_the_second_of_two_equal_clock_times_stays_the_second(server):
    at = datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Paris"))
    Meeting.create(name="a", at=at)
    assert Meeting.query.get(name="a").at == datetime(2026, 10, 25, 1, 30, tzinfo=UTC)


def test_one_instant_at_two_offsets_is_one_time_and_a_naive_one_is_another(server):
    noon = datetime(2026, 3, 2, 12, tzinfo=UTC)
    Meeting.create(name="aware", at=noon.astimezone(INDIA))
    Meeting.create(name="naive", at=datetime(2026, 3, 2, 12))
    assert [m.name for m in Meeting.query.filter(at=noon)] == ["aware"]
    assert [m.name for m in Meeting.query.filter(at=datetime(2026, 3, 2, 12))] == ["naive"]


def test_a_text_in_iso_8601_is_taken_and_others_are_refused(server):
    assert Meeting(name="a", at="2026-03-02T12:30:00Z").at == datetime(2026, 3, 2, 12, 30, tzinfo=UTC)
    assert Meeting(name="a", at="2026-03-02 12:30").at == datetime(2026, 3, 2, 12, 30)
    for wrong in ("today", "2026-03-02", 1_700_000_000, date(2026, 3, 2), time(12)):
        with pytest.raises(ModelException, match="'at': expected datetime, got"):
            Meeting(name="a", at=wrong)


class _Moody(tzinfo):
    def utcoffset(self, when):
        return None

    def tzname(self, when):
        return "moody"


def test_a_zone_without_an_offset_cannot_be_stored(server):
    with pytest.raises(ModelException, match=r"at.*without an offset"):
        Meeting.create(name="a", at=datetime(2026, 3, 2, tzinfo=_Moody()))
    assert server.dbsize() == 0


def test_auto_now_add_is_set_at_the_first_save_and_auto_now_at_each(server):
    with _clock.frozen(1_700_000_000) as clock:
        meeting = Meeting(name="a")
        assert meeting.made is None and meeting.changed is None, "nothing before the first save"
        meeting.save()
        first = meeting.made
        assert first == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC) and first.tzinfo is UTC
        assert meeting.changed == datetime.fromtimestamp(1_700_000_000) and meeting.changed.tzinfo is None
        clock.advance(60)
        meeting.save()
        assert meeting.made == first and meeting.changed == datetime.fromtimestamp(1_700_000_060)
        clock.advance(60)
        loaded = Meeting.query.get(name="a")
        loaded.note = "x"
        loaded.save(update_fields=["note"])
        assert Meeting.query.get(name="a").changed == datetime.fromtimestamp(1_700_000_060)
        loaded.save(update_fields=["note", "changed"], skip_auto_now=True)
        assert Meeting.query.get(name="a").changed == datetime.fromtimestamp(1_700_000_060)
        loaded.save(update_fields=["changed"])
        assert Meeting.query.get(name="a").changed == datetime.fromtimestamp(1_700_000_120)
        assert Meeting.query.get(name="a").made == first


def test_a_given_value_is_kept_by_auto_now_add_and_not_by_auto_now(server):
    given = datetime(2020, 1, 1, tzinfo=INDIA)
    meeting = Meeting.create(name="a", made=given, changed=given)
    assert meeting.made == given and meeting.changed.year > 2020
    other = Meeting(name="b", changed=given)
    other.save(skip_auto_now=True)
    assert Meeting.query.get(name="b").changed == given and other.made is not None


def test_a_refused_save_is_no_save(server):
    meeting = Meeting.create(name="a")
    before = Meeting.query.get(name="a").changed
    meeting.note = 5 * ["x"]
    with pytest.raises(ModelException):
        meeting.save()
    assert Meeting.query.get(name="a").changed == before


def test_the_frozen_clock_holds_for_sorted_fields_too(server):
    class DatetimeSorted(Model):
        name = KeyField()
        made = SortedField(type=datetime, auto_now_add=True)
        seen = SortedField(type=float, auto_now=True)

    with _clock.frozen(1_700_000_000.5):
        row = DatetimeSorted.create(name="a")
    assert row.made == datetime.fromtimestamp(1_700_000_000.5) and row.seen == 1_700_000_000.5


def test_options_that_make_no_sense_are_refused():
    with pytest.raises(ModelException, match="always datetime"):
        DatetimeField(type=str)
    with pytest.raises(ModelException, match=r"tz= expected a time zone.*got 'UTC'"):
        DatetimeField(tz="UTC")
    with pytest.raises(TypeError):
        DatetimeField(auto_add=True)
    with pytest.raises(ModelException, match="expected datetime, got 'now'"):
        DatetimeField(default="now")


def test_an_indexed_datetime_field_is_both(server):
    class DatetimeIndexed(Model):
        name = KeyField()
        at = DatetimeField(indexed=True, auto_now_add=True, tz=UTC)
        other = IndexedField(type=datetime)

    with _clock.frozen(1_700_000_000):
        DatetimeIndexed.create(name="a")
    query = DatetimeIndexed.query.filter(at="2023-11-14T23:13:20+01:00")
    assert query.compiled().where[0] == "set" and query.count() == 1
