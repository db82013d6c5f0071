"""Popoto: memory for LLM agents, made of fields on ordinary models, on a fast ORM over Redis/Valkey."""
from popoto.orm.model import Model
from popoto.orm.fields.base import Field
from popoto.orm.fields.key import *
from popoto.orm.fields.indexed import *
from popoto.orm.fields.sorted import *
from popoto.orm.fields.datetime import *
from popoto.orm.fields.typed import *
from popoto.redis_db import get_redis
