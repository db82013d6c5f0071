"""Rankings keep to any tree of conditions."""

from __future__ import annotations

import pytest

from popoto import ConfidenceField, DecayingSortedField, IndexedField, KeyField, ListField, Model, Q, Relationship


class TreeTeam(Model):
    name = KeyField()
    tags = ListField()


class TreeMemory(Model):
    name = KeyField()
    agent = IndexedField()
    kind = IndexedField()
    tags = ListField()
    team = Relationship(model=TreeTeam)
    relevance = DecayingSortedField(partition_by="agent")
    certainty = ConfidenceField()


@pytest.fixture
def memories(server):
    teams = [TreeTeam.create(name=f"t{n}", tags=[n]) for n in range(2)]
    for n in range(12):
        TreeMemory.create(name=f"m{n:02}", agent="ab"[n % 2], kind="xyz"[n % 3], tags=[n % 4], team=teams[n % 2])
    return TreeMemory.query


@pytest.mark.parametrize(
    "conditions",
    [
        [Q(agent="a")],
        [Q(agent="a") & (Q(kind="x") | Q(kind="y"))],
        [Q(agent="a"), ~Q(kind="x")],
        [Q(agent="a"), Q(tags=[2]) | Q(kind="x")],
        [Q(agent="a") & Q(team__tags=[0])],
        [Q(agent="a") & ~Q(team__tags=[0])],
    ],
    ids=str,
)
def test_a_ranking_finds_what_the_filter_finds(memories, conditions):
    found = memories.filter(*conditions)
    wanted = sorted(record.name for record in found)
    assert sorted(record.name for record in found.top_by_decay(n=20)) == wanted
    assert sorted(r.name for r in found.filter(agent="a").composite_score({"relevance": 1.0}, limit=20)) == wanted
