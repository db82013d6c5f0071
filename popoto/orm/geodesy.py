"""Places on the sphere as the server reckons them: geohash scores, distances, units. Pure functions.

A place is (latitude, longitude) in degrees. The score of a place is its 52-bit geohash, as GEOADD computes it: each
coordinate is cut into 2^26 cells, and the two cell numbers are interleaved bit by bit. A cell is at most 0.6 m wide, so
the middle of a cell, which is what the server knows of a place, is at most 0.34 m from it.
"""

from __future__ import annotations

import math

MAX_LATITUDE = 85.05112878  # of the Mercator projection, where the geohashes of the server end
MAX_LONGITUDE = 180.0
EARTH_RADIUS_M = 6372797.560856  # of the server's sphere
UNITS_M = {"m": 1.0, "km": 1000.0, "ft": 0.3048, "mi": 1609.34}  # as in the server

_CELLS = 1 << 26
_RADIANS = math.pi / 180


def out_of_range(latitude: float, longitude: float) -> str | None:
    """Return what is wrong with a place, or None."""
    if not -MAX_LATITUDE <= latitude <= MAX_LATITUDE:
        return f"a latitude is a number from -{MAX_LATITUDE} to {MAX_LATITUDE}, got {latitude!r}"
    if not -MAX_LONGITUDE <= longitude <= MAX_LONGITUDE:
        return f"a longitude is a number from -180 to 180, got {longitude!r}"
    return None


def geohash_score(latitude: float, longitude: float) -> float:
    """Return the score of a place in a GEO ordered set.

    The same as of GEOADD, but for the two outermost lines, latitude 85.05112878 and longitude 180 (and what rounds to
    them): there GEOADD writes a cell beyond the last one, which GEOSEARCH does not find. Such a place gets the last
    cell.
    """
    row = _cell(latitude, MAX_LATITUDE)
    column = _cell(longitude, MAX_LONGITUDE)
    return float(_spread(row) | _spread(column) << 1)


def _cell(degrees: float, most: float) -> int:
    return min(int((degrees + most) / (most + most) * _CELLS), _CELLS - 1)


def _spread(bits: int) -> int:
    """Return the number with a zero bit before each of its 32 bits."""
    bits = (bits | bits << 16) & 0x0000FFFF0000FFFF
    bits = (bits | bits << 8) & 0x00FF00FF00FF00FF
    bits = (bits | bits << 4) & 0x0F0F0F0F0F0F0F0F
    bits = (bits | bits << 2) & 0x3333333333333333
    return (bits | bits << 1) & 0x5555555555555555


def distance_m(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Return the metres between two places: the haversine formula, on the server's sphere."""
    latitude, other_latitude = one[0] * _RADIANS, other[0] * _RADIANS
    across = math.sin((other[1] * _RADIANS - one[1] * _RADIANS) / 2)
    if across == 0.0:
        return EARTH_RADIUS_M * abs(other_latitude - latitude)
    along = math.sin((other_latitude - latitude) / 2)
    a = along * along + math.cos(latitude) * math.cos(other_latitude) * across * across
    return 2.0 * EARTH_RADIUS_M * math.asin(math.sqrt(min(a, 1.0)))
