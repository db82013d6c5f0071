"""CoOccurrenceField: which records belong together: a weighted graph between them.

Each node is a name, by convention a record's key, with an ordered set of its neighbours. What is used together is
linked and strengthened; `weaken_all` lets edges fade; `propagate` finds what a few seeds bring to mind, breadth first:

    w(neighbour) = w(node) * decay_per_hop * weight of the edge

as in spreading activation (Collins & Loftus 1975), with a decay a hop instead of a decay in time. Edges are two-way
unless `symmetric=False`. A record that leaves takes its edges along, from its neighbours' nodes as well; one that moves
to another key keeps them (lua/kind_edges.lua).
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from typing import Any, ClassVar, TypeVar

from popoto.exceptions import ModelException
from popoto.memory.defaults import Defaults
from popoto.memory.events import LoggedScript, packed_event
from popoto.memory.number import is_number
from popoto.memory.valueless import ValuelessField, text_of_key
from popoto.orm.commands import Command, queue
from popoto.orm.drivers import adrive, arun, drive, run
from popoto.orm.keys import ModelKeys
from popoto.orm.plan import pack
from popoto.orm.scripts import Script, register_kind
from popoto.orm.slots import Made, Slot

_KIND = ("popoto.memory", "kind_edges")
register_kind(*_KIND, "g")
_FRAGMENTS = (("popoto.memory", "lib_claim"), _KIND)
LINK = LoggedScript(Script("popoto.memory", "link_edge", _FRAGMENTS, with_kinds=True))
UNLINK = Script("popoto.memory", "unlink_edge", _FRAGMENTS, with_kinds=True)
WEAKEN = Script("popoto.memory", "weaken_edges", _FRAGMENTS, with_kinds=True)
LINKED = Script("popoto.memory", "linked_nodes", flags="no-writes")

PREFIX = "$CoOcF"
LIGHTEST = 0.001  # weaken_all removes edges below this weight
EDGES_A_CALL = 20_000  # edges that one call of a hop may visit: about 10 ms

T = TypeVar("T")
Linked = list[tuple[str, float]]


def _done(command: Command[T], pipeline: Any) -> T | None:
    """Run the command, or queue it; None then."""
    if pipeline is None:
        return run(command)
    queue(command, pipeline)
    return None


async def _adone(command: Command[T], pipeline: Any) -> T | None:
    """Await `_done()`."""
    if pipeline is None:
        return await arun(command)
    return _done(command, pipeline)


class CoOccurrenceField(ValuelessField):
    """A graph between the records of a model; the attribute itself is always None.

    Its methods take the model first: `Memory.links.link(Memory, a, b)`. A node is given as an instance, a Redis key, or
    any other text (a topic); a key of the model must be that of a stored record.

    Args:
        symmetric: edges go both ways, with one weight.
        max_edges: edges a node may have; a further one drives the weakest out.
        decay_factor: what `weaken_all` multiplies by, in [0, 1); None follows `Defaults.CO_OCCURRENCE_DECAY_FACTOR`.
    Raises: ModelException: an option is out of range.
    """

    advice: ClassVar[str] = "Use its methods: link, strengthen, get_linked, propagate."

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.field_class_key = PREFIX

    def __init__(
        self, *, symmetric: bool = True, max_edges: int = 500, decay_factor: float | None = None, **options: Any
    ) -> None:
        if type(max_edges) is not int or max_edges < 1:
            raise ModelException(f"CoOccurrenceField: max_edges= expected a whole number from 1 on, got {max_edges!r}.")
        if decay_factor is not None and not (is_number(decay_factor) and 0 <= decay_factor < 1):
            raise ModelException(
                f"CoOccurrenceField: decay_factor= expected a number from 0 to below 1, or None, got {decay_factor!r}."
            )
        super().__init__(**options)
        self.symmetric = bool(symmetric)
        self.max_edges = max_edges
        self._decay_factor = None if decay_factor is None else float(decay_factor)

    @property
    def decay_factor(self) -> float:
        """The factor of this field, or `Defaults.CO_OCCURRENCE_DECAY_FACTOR` as it is now."""
        return Defaults.CO_OCCURRENCE_DECAY_FACTOR if self._decay_factor is None else self._decay_factor

    def slots(self) -> list[Slot]:
        def make(_: Mapping[str, Any]) -> Made | None:
            return [], False, None

        return [Slot(self.name, "g", PREFIX, self.name, (), (), make)]

    # -- keys ---------------------------------------------------------------------------------------------------------

    def get_edge_key(self, model_class: Any, pk: Any) -> str:
        """Return the key of a node's edges: an ordered set, neighbour -> weight."""
        node = text_of_key(pk)
        return f"{self._base(self._keys(model_class, node))}:{node}"

    def get_edge_key_prefix(self, model_class: Any) -> str:
        """Return what the keys of all nodes begin with; it ends with a colon."""
        return self._base(model_class._meta.keys) + ":"

    def _base(self, keys: ModelKeys) -> str:
        return keys.base(PREFIX, self.name)

    def _keys(self, model: Any, *nodes: str) -> ModelKeys:
        """Return the keys of the shard in which the nodes lie: a record's own, for other names the one at work.

        Raises: ValueError: the nodes lie in several shards.
        """
        meta = model._meta
        found = [meta.keys_at(node) for node in nodes if meta.holds(node)]
        if not found:
            return meta.keys  # type: ignore[no-any-return]
        if any(keys.namespace != found[0].namespace for keys in found):
            raise ValueError(f"{self._label()}: no edge leads from one shard to another: {', '.join(nodes)}.")
        return found[0]  # type: ignore[no-any-return]

    # -- edges --------------------------------------------------------------------------------------------------------

    def link(
        self,
        model_class: Any,
        source_pk: Any,
        target_pk: Any,
        initial_weight: float | None = None,
        pipeline: Any = None,
    ) -> float | None:
        """Connect two nodes; an edge that exists keeps its weight.

        Args:
            initial_weight: > 0; None for `Defaults.CO_OCCURRENCE_INITIAL_WEIGHT`.
        Returns: the weight of the edge, 0.0 where a full node dropped it as its weakest; None with a pipeline.
        Raises: ValueError: both are one node; a weight that is no positive number. TypeError: a record is not stored.
        """
        return _done(self._link_command(model_class, source_pk, target_pk, initial_weight), pipeline)

    async def async_link(
        self,
        model_class: Any,
        source_pk: Any,
        target_pk: Any,
        initial_weight: float | None = None,
        pipeline: Any = None,
    ) -> float | None:
        """Await `link()`."""
        return await _adone(self._link_command(model_class, source_pk, target_pk, initial_weight), pipeline)

    def _link_command(self, model: Any, source: Any, target: Any, weight: float | None) -> Command[float]:
        weight = Defaults.CO_OCCURRENCE_INITIAL_WEIGHT if weight is None else weight
        return self._edge_command(model, source, target, "initial_weight", weight, "link")

    def strengthen(
        self, model_class: Any, source_pk: Any, target_pk: Any, delta: float = 0.05, pipeline: Any = None
    ) -> float | None:
        """Add `delta` to the weight of an edge, which is made where there is none.

        Args:
            delta: > 0.
        Returns: the new weight; None with a pipeline. Otherwise as `link()`.
        """
        return _done(self._edge_command(model_class, source_pk, target_pk, "delta", delta, "add"), pipeline)

    async def async_strengthen(
        self, model_class: Any, source_pk: Any, target_pk: Any, delta: float = 0.05, pipeline: Any = None
    ) -> float | None:
        """Await `strengthen()`."""
        return await _adone(self._edge_command(model_class, source_pk, target_pk, "delta", delta, "add"), pipeline)

    def unlink(self, model_class: Any, source_pk: Any, target_pk: Any, pipeline: Any = None) -> None:
        """Remove an edge, both ways where edges go both ways; nothing where there is none."""
        _done(self._unlink_command(model_class, source_pk, target_pk), pipeline)

    async def async_unlink(self, model_class: Any, source_pk: Any, target_pk: Any, pipeline: Any = None) -> None:
        """Await `unlink()`."""
        await _adone(self._unlink_command(model_class, source_pk, target_pk), pipeline)

    def weaken_all(self, model_class: Any, pk: Any, factor: float | None = None, pipeline: Any = None) -> int | None:
        """Multiply the weights of a node's edges; those below 0.001 are removed.

        Args:
            factor: 0 (removes all) to 1 (only removes the lightest); None for the field's `decay_factor`.
        Returns: how many were removed; None with a pipeline.
        Raises: ValueError: a factor out of range.
        """
        return _done(self._weaken_command(model_class, pk, factor), pipeline)

    async def async_weaken_all(
        self, model_class: Any, pk: Any, factor: float | None = None, pipeline: Any = None
    ) -> int | None:
        """Await `weaken_all()`."""
        return await _adone(self._weaken_command(model_class, pk, factor), pipeline)

    # -- walks --------------------------------------------------------------------------------------------------------

    def get_linked(self, model_class: Any, pk: Any, min_weight: float = 0.01, limit: int = 20) -> Linked:
        """Return (neighbour, weight) of a node, heaviest first, equal ones by descending name.

        Args:
            min_weight: lightest edge that counts.
            limit: 0 gives []; a negative one all.
        """
        return run(self._linked_command(model_class, pk, min_weight, limit))

    async def async_get_linked(self, model_class: Any, pk: Any, min_weight: float = 0.01, limit: int = 20) -> Linked:
        """Await `get_linked()`."""
        return await arun(self._linked_command(model_class, pk, min_weight, limit))

    def propagate(
        self,
        model_class: Any,
        seed_pks: Iterable[Any] | None,
        depth: int = 2,
        decay_per_hop: float | None = None,
        threshold: float = 0.01,
    ) -> dict[str, float]:
        """Return what the seeds lead to within `depth` hops: node -> weight, heaviest first, without the seeds.

        The seeds weigh 1; each hop multiplies by `decay_per_hop` and the weight of the edge. A node counts, and leads
        on, from `threshold` on, with the best of the ways to it. One round trip a hop.

        Args:
            seed_pks: nodes. None or none: {}.
            depth: hops; 0 gives the seeds, a negative number {}.
            decay_per_hop: > 0; None for `Defaults.CO_OCCURRENCE_DECAY_PER_HOP`.
        Raises: TypeError: a single text, or a depth that is no whole number. ValueError: a number out of range.
        """
        return drive(self._propagate_steps(model_class, seed_pks, depth, decay_per_hop, threshold))

    async def async_propagate(
        self,
        model_class: Any,
        seed_pks: Iterable[Any] | None,
        depth: int = 2,
        decay_per_hop: float | None = None,
        threshold: float = 0.01,
    ) -> dict[str, float]:
        """Await `propagate()`."""
        return await adrive(self._propagate_steps(model_class, seed_pks, depth, decay_per_hop, threshold))

    # -- commands -----------------------------------------------------------------------------------------------------

    def _edge_command(
        self, model: Any, source_pk: Any, target_pk: Any, name: str, amount: Any, what: str
    ) -> Command[float]:
        source, target = text_of_key(source_pk), text_of_key(target_pk)
        if source == target:
            raise ValueError(f"{self._label()}: a node has no edge to itself ({source!r}). Give two different ones.")
        if not (is_number(amount) and amount > 0):
            raise ValueError(f"{self._label()}: {name}= expected a number above 0, got {amount!r}.")
        meta = model._meta
        records = "".join("01"[meta.holds(node)] for node in (source, target))
        event = packed_event(model, self._keys(model, source, target)) if what == "add" else ""
        return Command(
            (
                *self._nodes(model, source, target),
                *(self.name, source, target, records, repr(float(amount)), what),
                *(int(self.symmetric), self.max_edges, event, ""),
            ),
            float,
            LINK.of(model),
            key_count=3,
            repeat="token",
        )

    def _unlink_command(self, model: Any, source_pk: Any, target_pk: Any) -> Command[None]:
        source, target = text_of_key(source_pk), text_of_key(target_pk)
        args = (*self._nodes(model, source, target), source, target, int(self.symmetric), "")
        return Command(args, lambda _: None, UNLINK, key_count=3, repeat="token")

    def _nodes(self, model: Any, source: str, target: str) -> tuple[str, ...]:
        keys = self._keys(model, source, target)
        base = self._base(keys)
        return f"{base}:{source}", f"{base}:{target}", keys.sentinel, base

    def _weaken_command(self, model: Any, pk: Any, factor: float | None) -> Command[int]:
        factor = self.decay_factor if factor is None else factor
        if not (is_number(factor) and 0 <= factor <= 1):
            raise ValueError(f"{self._label()}: factor= expected a number from 0 to 1, got {factor!r}.")
        node = text_of_key(pk)
        keys = self._keys(model, node)
        args = (f"{self._base(keys)}:{node}", keys.sentinel, self._base(keys), node, repr(float(factor)), LIGHTEST)
        return Command((*args, int(self.symmetric), ""), script=WEAKEN, key_count=2, repeat="token")

    def _linked_command(self, model: Any, pk: Any, min_weight: float, limit: int) -> Command[Linked]:
        if not is_number(min_weight):
            raise ValueError(f"{self._label()}: min_weight= expected a number, got {min_weight!r}.")
        if type(limit) is not int:
            raise TypeError(f"{self._label()}: limit= expected a whole number (-1 for all), got {limit!r}.")
        node = text_of_key(pk)
        return self._step_command(model, self._keys(model, node), {node: 1.0}, 1.0, min_weight, max(limit, -1))

    def _step_command(
        self, model: Any, keys: ModelKeys, weights: Mapping[str, float], factor: float, least: float, most: int
    ) -> Command[Linked]:
        nodes: list[str] = []
        for node, weight in weights.items():
            nodes += (node, repr(weight))
        query = {
            "base": self._base(keys), "nodes": nodes, "factor": float(factor), "least": float(least), "most": most,
            "record": keys.record + ":", "colons": len(model._meta.key_names) - 1,
        }  # fmt: skip

        def parse(reply: list[bytes]) -> Linked:
            items = iter(reply)
            return [(node.decode(), float(weight)) for node, weight in zip(items, items, strict=True)]

        return Command((keys.sentinel, pack(query)), parse, LINKED, key_count=1)

    def _propagate_steps(
        self, model: Any, seed_pks: Any, depth: int, decay_per_hop: float | None, threshold: float
    ) -> Generator[Any, Any, dict[str, float]]:
        if isinstance(seed_pks, (str, bytes)) or hasattr(seed_pks, "_saved_key"):
            raise TypeError(f"propagate(): seed_pks= expected a list of nodes, got {seed_pks!r}. Put it into a list.")
        if type(depth) is not int:
            raise TypeError(f"propagate(): depth= expected a whole number of hops, got {depth!r}.")
        factor = Defaults.CO_OCCURRENCE_DECAY_PER_HOP if decay_per_hop is None else decay_per_hop
        if not (is_number(factor) and factor > 0):
            raise ValueError(f"propagate(): decay_per_hop= expected a number above 0, got {factor!r}.")
        if not is_number(threshold):
            raise ValueError(f"propagate(): threshold= expected a number, got {threshold!r}.")
        seeds = {text_of_key(pk): 1.0 for pk in seed_pks or ()}
        if depth < 0 or not seeds:
            return {}
        if depth == 0:
            return seeds
        best, frontier = dict(seeds), dict(seeds)
        a_call = max(1, EDGES_A_CALL // self.max_edges)
        for _ in range(depth):
            by_shard: dict[ModelKeys, list[str]] = {}
            for node in frontier:
                by_shard.setdefault(self._keys(model, node), []).append(node)
            replies = yield [
                self._step_command(
                    model, keys, {n: frontier[n] for n in nodes[at : at + a_call]}, factor, threshold, self.max_edges
                )
                for keys, nodes in by_shard.items()
                for at in range(0, len(nodes), a_call)
            ]
            frontier = {}
            for node, weight in (item for reply in replies for item in reply):
                if weight > best.get(node, 0.0):
                    best[node] = frontier[node] = weight
            if not frontier:
                break
        reached = [(node, weight) for node, weight in best.items() if node not in seeds]
        return dict(sorted(reached, key=lambda item: (-item[1], item[0])))


CoOccurrenceField.field_class_key = PREFIX
