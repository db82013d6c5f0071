"""Import path of Model; it lives in popoto.memory.model and popoto.orm."""

from popoto.memory.model import Model
from popoto.orm.metaclass import ModelBase
from popoto.orm.options import ModelOptions

__all__ = ["Model", "ModelBase", "ModelOptions"]
