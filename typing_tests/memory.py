"""Memory fields and recipes as a user's type checker sees them; read by `mypy --strict`, never run."""

from __future__ import annotations

from typing import Any

from typing_extensions import assert_type

from popoto import (
    AssemblyResult,
    BM25Field,
    ConfidenceField,
    ContextAssembler,
    DecayingSortedField,
    Defaults,
    InteractionWeight,
    KeyField,
    Model,
    StringField,
    TemporalPeriod,
)
from popoto.recipes.context_assembler import format_natural


class Memory(Model):
    agent_id = KeyField()
    name = KeyField()
    text = StringField(max_length=None)
    words = BM25Field(source="text")
    relevance = DecayingSortedField(partition_by="agent_id", decay_rate=0.3)
    certainty = ConfidenceField(initial_confidence=0.6, partition_by=("agent_id",))


def confidence(memory: Memory) -> None:
    assert_type(ConfidenceField.update_confidence(memory, "certainty", 0.9), float)
    assert_type(ConfidenceField.get_confidence(memory, "certainty"), float)
    assert_type(ConfidenceField.get_confidence_data(memory, "certainty"), dict[str, Any])
    assert_type(ConfidenceField.get_confidence_filtered(Memory, "certainty", "*", agent_id="a"), dict[str, Any])
    ConfidenceField.update_confidence(memory, "certainty", "high")  # type: ignore[arg-type]
    ConfidenceField.update_confidence(memory, "certainty")  # type: ignore[call-arg]
    ConfidenceField(initial_confidence="high")  # type: ignore[arg-type]
    field = Memory._meta.fields["certainty"]
    if isinstance(field, ConfidenceField):
        assert_type(field.initial_confidence, float)
        assert_type(field.get_data_hash_key(memory, "certainty"), str)
        assert_type(field.get_data_hash_key_from_values(Memory, "certainty", agent_id="a"), str)
        assert_type(field.get_old_data_hash_key(memory, "certainty"), str | None)


def rankings(memory: Memory) -> None:
    assert_type(memory.touch("relevance"), Any)
    assert_type(Memory.query.top_by_decay("relevance", n=5), list[Any])
    assert_type(Memory.query.keyword_search("dentist", limit=5), list[Any])
    assert_type(BM25Field.search(Memory, "words", "dentist"), list[tuple[str, float]])
    assert_type(BM25Field.get_idf(Memory, "words", ["dentist"]), dict[str, float])
    Memory.query.top_by_decay(n="5")  # type: ignore[arg-type]
    DecayingSortedField(decay_rate="fast")  # type: ignore[arg-type]


def constants() -> None:
    Defaults.DECAY_RATE = 0.7
    assert_type(TemporalPeriod.WEEKLY, int)
    assert_type(InteractionWeight.HUMAN, float)


def assembling() -> None:
    def counter(record: Memory) -> int:
        return len(str(record.text))

    assembler = ContextAssembler(
        Memory, {"relevance": 0.3, "certainty": 0.7}, max_items=5, max_tokens=800, token_counter=counter
    )
    result = assembler.assemble({"topic": "dentist"}, agent_id="a", partition_filters={"name": "x"})
    assert_type(result, AssemblyResult)
    assert_type(result.records, list[Any])
    assert_type(result.proactive, list[Any])
    assert_type(result.formatted, str)
    assert_type(result.metadata, dict[str, Any])
    assert_type(format_natural(result.records), str)
    assembler.assemble("dentist")  # type: ignore[arg-type]
    ContextAssembler(Memory)  # type: ignore[call-arg]
    ContextAssembler(Memory, ["relevance"])  # type: ignore[arg-type]
    ContextAssembler(Memory, {"relevance": "much"})  # type: ignore[dict-item]
    ContextAssembler(Memory, {}, max_tokens="800")  # type: ignore[arg-type]


async def asynchronously(memory: Memory) -> None:
    assembler = ContextAssembler(Memory, {})
    assert_type(await assembler.async_assemble({"topic": "dentist"}), AssemblyResult)
    assert_type(await ConfidenceField.async_update_confidence(memory, "certainty", 0.9), float)
    assert_type(await ConfidenceField.async_get_confidence(memory, "certainty"), float)
    assert_type(await Memory.query.async_top_by_decay(n=5), list[Any])
    assert_type(await Memory.query.async_keyword_search("dentist"), list[Any])
    assert_type(await memory.async_touch("relevance"), Any)
