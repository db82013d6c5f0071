"""GeoField: a place, and who is near it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from popoto.exceptions import ModelException, QueryException
from popoto.orm.codec import CodecError
from popoto.orm.coerce import CoercionError, coercer_for, describe
from popoto.orm.db_key import DB_key
from popoto.orm.fields.base import Condition, Field
from popoto.orm.geodesy import UNITS_M, distance_m, geohash_score, out_of_range
from popoto.orm.keys import ModelKeys
from popoto.orm.slots import Made, Slot

_to_float = coercer_for(float)


class Coordinates(NamedTuple):
    """A place: degrees of latitude and longitude; (None, None), which is false, where there is none."""

    latitude: float | None = None
    longitude: float | None = None

    def __bool__(self) -> bool:
        return self.latitude is not None


NOWHERE = Coordinates()


class Near:
    """A centre and a radius, of one filter.

    Attributes:
        field: name of the field that holds the places.
        key: ordered set of their geohashes.
        centre: (latitude, longitude).
        metres: the radius.
        unit: of distances: m, km, ft or mi.
        with_distances: results carry `_geo_distance` and `_geo_distance_unit`.
    """

    __slots__ = ("centre", "field", "key", "metres", "unit", "with_distances")

    def __init__(
        self, field: str, key: str, centre: tuple[float, float], metres: float, unit: str, with_distances: bool
    ) -> None:
        self.field, self.key, self.centre = field, key, centre
        self.metres, self.unit, self.with_distances = metres, unit, with_distances

    def condition(self) -> list[Any]:
        """Return the condition for the server (lua/lib_where_near.lua)."""
        return ["near", self.key, self.field, self.centre[0], self.centre[1], self.metres]

    def metres_to(self, place: Any) -> float:
        """Return how far a place is; infinity where there is none."""
        return distance_m(self.centre, place) if place else math.inf

    def distance(self, place: Any) -> float | None:
        """Return the distance of a place in the unit, to four decimals; None where there is none."""
        return round(self.metres_to(place) / UNITS_M[self.unit], 4) if place else None


class GeoField(Field):
    """A place: `GeoField.Coordinates(latitude, longitude)` in degrees; a plain tuple or list of two is taken as well.

    Latitudes go to +-85.05112878, where the server's geohashes end. None, or Coordinates(None, None), is no place;
    reading it gives Coordinates(None, None). Filters of a field `location`:

        location=(latitude, longitude)   the centre; or location_latitude= and location_longitude=; or
        location_member=instance         another record of the model, with the place that the instance has in memory
        location_radius=                 default 1
        location_radius_unit=            "m" (default), "km", "ft", "mi"
        location_with_distances=True     results carry `_geo_distance` (float, in that unit) and `_geo_distance_unit`,
                                         and come nearest first unless they are ordered otherwise
        location__isnull=True or False   has no place, or has one

    Distances are those of the stored coordinates on the server's sphere (radius 6372.8 km); they also decide who is
    within the radius, to a micrometre, not the geohash.

    Args:
        null: may be without a place when saved.
        default: a place, or a callable that returns one.
    """

    Coordinates: ClassVar[type[Coordinates]] = Coordinates
    _CENTRE: ClassVar[tuple[str, ...]] = ("", "_latitude", "_longitude", "_member")
    _OPTIONS: ClassVar[tuple[str, ...]] = ("_radius", "_radius_unit", "_with_distances")

    def __init__(self, *, null: bool = True, default: Any = None, **options: Any) -> None:
        if options.pop("type", tuple) is not tuple:
            raise ModelException(f"{self._label()}: type= is always tuple; leave it out.")
        super().__init__(type=tuple, null=null, default=NOWHERE if default is None else default, **options)
        self._model: type | None = None

    def bind(self, model: Any) -> None:
        self._model = model
        for parameter in self.filter_parameters():
            if parameter != self.name and parameter in model._meta.fields:
                raise ModelException(
                    f"{model.__name__}.{parameter}: the name is a filter of the GeoField '{self.name}'. "
                    "Rename the field."
                )

    # -- values -----------------------------------------------------------------------------------------------------

    def default_value(self) -> Any:
        return super().default_value() or NOWHERE

    def coerce(self, value: Any) -> Any:
        """Return Coordinates.

        Raises: ModelException: no two numbers, one of them missing, or out of range.
        """
        if value is None:
            return NOWHERE
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise ModelException(
                f"{self._label()}: expected (latitude, longitude) in degrees, got {describe(value)}. "
                "None means that there is no place."
            )
        latitude, longitude = value
        if latitude is None and longitude is None:
            return NOWHERE
        if latitude is None or longitude is None:
            missing = "latitude" if latitude is None else "longitude"
            raise ModelException(f"{self._label()}: {missing} is missing in {describe(value)}. Give both, or None.")
        try:
            place = Coordinates(_degrees(latitude), _degrees(longitude))
        except CoercionError as error:
            raise ModelException(f"{self._label()}: {error}") from None
        wrong = out_of_range(*place)  # type: ignore[arg-type]
        if wrong:
            raise ModelException(f"{self._label()}: {wrong}. The order is (latitude, longitude).")
        return place

    def encode(self, value: Any) -> bytes:
        return super().encode(tuple(NOWHERE if value is None else value))

    def decode(self, raw: bytes) -> Any:
        value = super().decode(raw)
        if value is None:
            return NOWHERE
        try:
            return self.coerce(value)
        except ModelException as error:
            raise CodecError(str(error)) from None

    def format_value_pre_save(self, value: Any, skip_auto_now: bool = False, **kwargs: Any) -> Any:
        return NOWHERE if value is None else value

    @classmethod
    def is_valid(cls, field: Field, value: Any, null_check: bool = True, **kwargs: Any) -> bool:
        if null_check and not field.null and not value:
            model = getattr(getattr(field, "_model", None), "__name__", "GeoField")
            raise ModelException(f"{model}.{field.name} has no place, and the field is not null. Give it coordinates.")
        return True

    @classmethod
    def get_geo_db_key(cls, model: Any, field_name: str) -> DB_key:
        """Return the key of the ordered set of places of a field."""
        return cls.get_special_use_field_db_key(model, field_name)

    def slots(self) -> list[Slot]:
        name = self.name

        def make(values: Mapping[str, Any]) -> Made | None:
            place = values[name]
            return ([], False, geohash_score(*place)) if place else None

        return [Slot(name, "z", self.field_class_key, name, (), (name,), make)]

    # -- filters ----------------------------------------------------------------------------------------------------

    def filter_parameters(self) -> dict[str, str]:
        names = {self.name + suffix: suffix for suffix in (*self._CENTRE, *self._OPTIONS)}
        return {**names, f"{self.name}__isnull": "isnull"}

    def condition(self, keys: ModelKeys, lookup: str, value: Any, given: Mapping[str, Any]) -> Condition:
        key = keys.base(self.field_class_key, self.name)
        if lookup == "isnull":
            if not isinstance(value, bool):
                raise QueryException(f"filter({self.name}__isnull=...): expected True or False, got {value!r}.")
            placed = ["range", key, "-inf", "+inf"]
            return Condition(["not", placed] if value else placed)
        mine = {
            suffix: given[self.name + suffix]
            for suffix in (*self._CENTRE, *self._OPTIONS)
            if self.name + suffix in given
        }
        near = self._near(key, mine)
        if lookup != next(iter(mine)):
            return Condition(["all"])  # the first of the parameters stands for them all
        return Condition(near.condition(), near=near)

    def _near(self, key: str, given: Mapping[str, Any]) -> Near:
        centre = self._centre(given)
        radius = given.get("_radius", 1)
        if isinstance(radius, bool) or not isinstance(radius, (int, float)) or not 0 <= radius < math.inf:
            raise QueryException(f"filter({self.name}_radius=...): expected a number, 0 or more, got {radius!r}.")
        unit = given.get("_radius_unit", "m")
        if not isinstance(unit, str) or unit not in UNITS_M:
            raise QueryException(
                f"filter({self.name}_radius_unit=...): expected one of {', '.join(UNITS_M)}, got {unit!r}."
            )
        with_distances = given.get("_with_distances", False)
        if not isinstance(with_distances, bool):
            raise QueryException(
                f"filter({self.name}_with_distances=...): expected True or False, got {with_distances!r}."
            )
        return Near(self.name, key, centre, radius * UNITS_M[unit], unit, with_distances)

    def _centre(self, given: Mapping[str, Any]) -> tuple[float, float]:
        name = self.name
        pair = "_latitude" if "_latitude" in given else "_longitude"
        ways = [way for way in ("", pair, "_member") if way in given]
        if len(ways) != 1:
            what = "has no centre" if not ways else "has more than one centre"
            told = ", ".join(f"{name}{suffix}=..." for suffix in given)
            raise QueryException(
                f"filter({told}) {what}: give {name}=(latitude, longitude), "
                f"or {name}_latitude= and {name}_longitude=, or {name}_member=instance."
            )
        if ways == ["_member"]:
            member = given["_member"]
            if self._model is None or not isinstance(member, self._model):
                expected = getattr(self._model, "__name__", "the model")
                raise QueryException(f"filter({name}_member=...): expected an instance of {expected}, got {member!r}.")
            place = getattr(member, name)
            if not place:
                raise QueryException(f"filter({name}_member=...): {member!r} has no place in '{name}'.")
        elif ways == [pair]:
            if "_latitude" not in given or "_longitude" not in given:
                raise QueryException(f"filter(): give both {name}_latitude= and {name}_longitude=, or {name}=(...).")
            place = (given["_latitude"], given["_longitude"])
        else:
            place = given[""]
            if not isinstance(place, tuple) or len(place) != 2:
                raise QueryException(
                    f"filter({name}=...): expected (latitude, longitude), got {place!r}. For records without a place "
                    f"use {name}__isnull=True."
                )
        try:
            centre = self.coerce(place)
        except ModelException as error:
            raise QueryException(f"filter({name}...): {error}") from None
        if not centre:
            raise QueryException(
                f"filter({name}...): the centre {place!r} is no place. For records without one use {name}__isnull=True."
            )
        return tuple(centre)


def _degrees(value: Any) -> float:
    if isinstance(value, bool):
        raise CoercionError(f"expected a number of degrees, got {value!r}")
    return float(_to_float(value)) + 0.0  # no -0.0
