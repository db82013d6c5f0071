"""`python -m benchmarks`: one run, all contenders, one throw-away server. See README.md beside this file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from . import data, memory, micro
from .bars import Results, judge, judge_memory
from .contender import Contender, Spec
from .operations import BY_NAME, DATASETS, OPERATIONS, Operation
from .peer_requirements import PEER_VERSION
from .peers import peers_python
from .report import as_json, errors, table, visits
from .rounds import Cell, measure
from .server import Server, find_binary

ROOT = Path(__file__).resolve().parent.parent
SIZES = (1_000, 10_000)
FULL_SIZES = (100_000, 1_000_000)
NAMES = ("raw", "ours", "peer", "walrus", "redis-om")


def parse_size(text: str) -> int:
    """`10k` -> 10000, `1M` -> 1000000, `500` -> 500."""
    factor = {"k": 1_000, "m": 1_000_000}.get(text[-1:].lower(), 1)
    digits = text if factor == 1 else text[:-1]
    if not digits.isdigit() or int(digits) == 0:
        raise argparse.ArgumentTypeError(f"size {text!r}: expected a number such as 500, 10k or 1M")
    return int(digits) * factor


def _list_of(kind: str, known: Sequence[str]) -> object:
    def parse(text: str) -> list[str]:
        names = [name for name in text.split(",") if name]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"unknown {kind} {', '.join(unknown)}; known: {', '.join(known)}")
        return names

    return parse


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="popoto beside redis-py and other libraries"
    )
    parser.add_argument(
        "--sizes",
        type=lambda text: [parse_size(part) for part in text.split(",")],
        help="records stored: 1k,10k (default)",
    )
    parser.add_argument("--full", action="store_true", help="also 100k and 1M: long, and several GB of memory")
    parser.add_argument(
        "--only",
        type=_list_of("operation", (*BY_NAME, memory.NAME)),
        default=[*BY_NAME, memory.NAME],
        help=f"of: {', '.join((*BY_NAME, memory.NAME))}",
    )
    parser.add_argument(
        "--contenders", type=_list_of("contender", NAMES), default=list(NAMES), help=f"of: {', '.join(NAMES)}"
    )
    parser.add_argument("--rounds", type=int, default=8, help="rounds of a cell; even, for the order alternates (8)")
    parser.add_argument(
        "--budget", type=float, default=15.0, help="seconds that one contender may take for one cell (15)"
    )
    parser.add_argument(
        "--load-budget", type=float, default=180.0, help="seconds for loading one contender's data (180)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round to FILE")
    parser.add_argument(
        "--peers-venv", metavar="DIR", help="a virtual environment with the peers (default: made and cached)"
    )
    parser.add_argument(
        "--server", metavar="PROGRAM", help="server to start (default: embedded Valkey, then what is on PATH)"
    )
    parser.add_argument("--rates", action="store_true", help="also print the rates of construct and hydrate")
    return parser.parse_args(argv)


def _specs(wanted: Sequence[str], peers_venv: str | None) -> list[Spec]:
    here = sys.executable
    needs_peers = any(name in wanted for name in ("peer", "walrus", "redis-om"))
    there = str(peers_python(peers_venv)) if needs_peers else ""
    every = (
        Spec("raw", "redis-py", "raw", here, db=1),
        Spec("ours", "popoto (this)", "ours", here, db=2, own_package=True),
        Spec("peer", f"popoto {PEER_VERSION}", "peer_popoto", there, db=3),
        Spec("walrus", "walrus", "walrus", there, db=4),
        Spec("redis-om", "redis-om", "redis_om", there, db=5),
    )
    return [spec for spec in every if spec.name in wanted]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _compare_writes(contenders: Sequence[Contender]) -> None:
    """Say whether one save of raw makes the same keys as one save of ours: else it is not the floor of it."""
    by_name = {contender.spec.name: contender for contender in contenders if not contender.failed}
    if not {"raw", "ours"} <= by_name.keys():
        return
    replies = {name: by_name[name].ask_or_restart({"op": "written"}, timeout=30.0) for name in ("raw", "ours")}
    keys = {name: reply.get("keys") for name, reply in replies.items()}
    raw, ours = keys["raw"], keys["ours"]
    if raw is None or ours is None:
        print(f"  keys of one save: not compared ({replies})")
        return
    # The token of a retry is our own addition. The floor goes without, which favours the floor.
    # What all records have in common is written with the first one only.
    ours = {key: kind for key, kind in ours.items() if not key.startswith("$Token:") and not key.endswith("::shapes")}
    for name, mine, other in (("ours", ours, raw), ("raw", raw, ours)):
        alone = sorted(f"{key} ({kind})" for key, kind in mine.items() if other.get(key) != kind)
        if alone:
            print(f"  WARNING: one save of {name} alone writes {', '.join(alone)}; see workers/raw_commands.py")
    if raw == ours:
        print(f"  keys of one save: the same {len(raw)} in raw and ours (retry token aside)")


def _load(
    contenders: Sequence[Contender], dataset: str, start: int, size: int, budget: float, out: dict[str, str]
) -> list[Contender]:
    """Bring every store from `start` to `size` records; return who has them. `out` notes why the others have
    not."""
    ready = []
    for contender in contenders:
        name = contender.spec.name
        if name in out:
            continue
        request = {"op": "load", "dataset": dataset, "start": start, "size": size, "budget": budget}
        reply = contender.ask_or_restart(request, timeout=budget * 1.5 + 30.0)
        if reply.get("unsupported"):
            out[name] = "-"
        elif "skipped" in reply:
            out[name] = f"skipped: loading {reply['skipped']}"
        elif "error" in reply:
            out[name] = f"error: {reply['error']}"
        else:
            _say(f"  {name}: loaded {reply['calls']:,} {dataset} in {reply['seconds']:.1f} s")
            ready.append(contender)
            continue
        _say(f"  {name}: {out[name]}")
    return ready


def _run(
    args: argparse.Namespace, contenders: Sequence[Contender], sizes: Sequence[int], of_memory: memory.Memory
) -> Results:
    results: Results = {}
    chosen = [operation for operation in OPERATIONS if operation.name in args.only]
    for dataset in DATASETS:
        operations = [operation for operation in chosen if operation.dataset == dataset]
        asks_memory = dataset == "records" and memory.NAME in args.only
        if not operations and not asks_memory:
            continue
        start = 0
        out = {contender.spec.name: f"error: {contender.failed}" for contender in contenders if contender.failed}
        for size in sizes:
            _say(f"{dataset}, {size:,}:")
            ready = _load(contenders, dataset, start, size, args.load_budget, out)
            if asks_memory:
                of_memory[size] = memory.measure(ready, size)
            for operation in operations:
                if _belongs(operation, size, sizes):
                    _say(f"  {operation.name}")
                    cells = measure(ready, operation, size, args.rounds, args.budget)
                    cells |= {name: Cell(note=note) for name, note in out.items()}
                    results[operation.name, size] = cells
            start = size
        for contender in contenders:
            if not contender.failed:
                contender.ask_or_restart({"op": "flush"}, timeout=60.0)  # memory for the next dataset
    return results


def _belongs(operation: Operation, size: int, sizes: Sequence[int]) -> bool:
    fitting = [possible for possible in sizes if possible >= operation.needs]
    return size in (fitting if operation.depends_on_size else fitting[:1])


def _print_report(
    args: argparse.Namespace,
    results: Results,
    of_memory: memory.Memory,
    contenders: Sequence[Contender],
    sizes: Sequence[int],
) -> None:
    for size in sizes:
        if any(at == size for _, at in results) or size in of_memory:
            print(f"\n### {size:,} records\n")
            if any(at == size for _, at in results):
                print(table(results, contenders, size))
            if size in of_memory:
                print(f"\n- {memory.row(of_memory[size])}")
            if lines := visits(results, size):
                print("\n" + "\n".join(f"- {line}" for line in lines))
    if args.rates:
        medians = {(op, name): cell.median for (op, _), cells in results.items() for name, cell in cells.items()}
        print("\n" + "\n".join(micro.rates({key: value for key, value in medians.items() if value is not None})))
    print("\nTimes: medians for one record or call. Ratios: speeds (2x = twice as fast), quartiles in brackets.")
    for line in errors(results):
        print(f"  {line}")
    if "ours" in args.contenders:
        print("\nBars:")
        print("\n".join(f"  {line}" for line in [*judge(results), *judge_memory(of_memory)]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run and report. Returns the exit status: 0, or 1 when the contender "ours" could not be run."""
    args = _arguments(argv)
    sizes = sorted(set(args.sizes or SIZES) | set(FULL_SIZES if args.full else ()))
    specs = _specs(args.contenders, args.peers_venv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a terminated run stops its server as well
    of_memory: memory.Memory = {}
    with tempfile.TemporaryDirectory(prefix="popoto-bench-") as name:
        folder = Path(name)
        stage = folder / "stage"
        stage.mkdir()
        (stage / "benchmarks").symlink_to(ROOT / "benchmarks", target_is_directory=True)
        with Server(folder, find_binary(args.server)) as server:
            environment = {
                "server": server.describe(),
                "server program": server.binary,
                "connection": "Unix socket, one server for all, a database each",
                "platform": platform.platform(),
                "cpus": os.cpu_count(),
                "batch": data.BATCH,
                "rounds": args.rounds,
                "date": time.strftime("%Y-%m-%d"),
            }
            contenders = [Contender(spec, server, stage, ROOT) for spec in specs]
            try:
                for contender in contenders:
                    contender.start()
                print(", ".join(f"{key}: {value}" for key, value in environment.items()))
                for contender in contenders:
                    found = contender.versions
                    shown = contender.failed or ", ".join(f"{key} {value}" for key, value in found.items())
                    print(f"  {contender.spec.name}: {shown}", flush=True)
                _compare_writes(contenders)
                results = _run(args, contenders, sizes, of_memory)
            finally:
                for contender in contenders:
                    contender.stop()
    _print_report(args, results, of_memory, contenders, sizes)
    if args.json:
        args.json.write_text(json.dumps(as_json(results, of_memory, contenders, environment), indent=1), "utf-8")
    return int(any(contender.failed for contender in contenders if contender.spec.name == "ours"))


if __name__ == "__main__":
    sys.exit(main())
