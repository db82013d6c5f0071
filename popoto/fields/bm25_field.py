"""Import path of BM25Field; it lives in popoto.memory.bm25."""

from popoto.memory.bm25 import BM25Field

__all__ = ["BM25Field"]
