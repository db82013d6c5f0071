"""Import path of GeoField; it lives in popoto.orm.fields.geo."""

from popoto.orm.fields.geo import GeoField

__all__ = ["GeoField"]
