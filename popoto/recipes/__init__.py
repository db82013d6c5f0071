"""Recipes: ready ways from a store to the context of a model call."""

from popoto.recipes.context_assembler import AssemblyResult, ContextAssembler

__all__ = ["AssemblyResult", "ContextAssembler"]
