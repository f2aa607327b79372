"""Which arguments a kernel writes to, from Triton's own intermediate text (TTIR): pointers are followed
from the parameters through arithmetic, loops and branches to stores.

A pointer that a kernel loads from memory, makes of an integer or hands to a function that is not inlined is
not followed: what is found is written, what is not found may be.
"""

from __future__ import annotations

import re
from collections import defaultdict

_VALUE = r"%[\w$.-]+(?:#\d+)?"
_POINTERS = ("!tt.ptr", "!tt.tensordesc")
_STORES = re.compile(
    r"^(?:tt\.store|tt\.atomic_rmw|tt\.atomic_cas|tt\.descriptor_store|tt\.descriptor_reduce"
    r"|tt\.descriptor_scatter)\b"
)
_READS = re.compile(r"^(?:tt\.load|tt\.descriptor_load|tt\.descriptor_gather|tt\.return)\b")


def written(ttir: str) -> set[str]:
    """Names of parameters."""
    text = re.sub(r"\bloc\((?:[^()]|\([^()]*\))*\)", "", ttir)
    header = re.search(r"tt\.func public @[^(]*\((.*)$", text, re.MULTILINE)
    if header is None:
        return set()
    parameters = re.findall(r"%([\w$.-]+): !tt\.(?:ptr|tensordesc)", header.group(1))
    sources: dict[str, set[str]] = defaultdict(set)  # of each value, what it may be made of
    stores: set[str] = set()
    blocks: list[tuple[list[str], list[str]]] = []  # results and carried values of open regions
    for line in text[header.end() :].splitlines():
        line = line.strip()
        results, operation = _split(line)
        if line.startswith("}") and blocks:
            if not line.endswith("{"):  # else the same operation's next region
                blocks.pop()
            continue
        if _STORES.match(operation):
            target = re.search(_VALUE, operation)
            stores |= {target.group()} if target else set()
        if operation.startswith(("scf.yield", "scf.condition")):
            values = re.findall(_VALUE, re.sub(r"^scf\.condition\([^)]*\)", "", operation))
            for places in blocks[-1] if blocks else ():
                for place, value in zip(places, values):
                    sources[place].add(value)
        elif operation.endswith("{"):
            carried = re.findall(rf"({_VALUE}) = ({_VALUE})", operation.partition("iter_args")[2])
            for place, value in carried:
                sources[place].add(value)
            for result, (_, value) in zip(results, carried):
                sources[result].add(value)  # of a loop that is never entered
            blocks.append((results, [place for place, _ in carried]))
        elif any(p in operation for p in _POINTERS) and not _READS.match(operation):
            for result in results:
                sources[result] |= set(re.findall(_VALUE, operation))
    reached, todo = set(), list(stores)
    while todo:
        value = todo.pop()
        if value not in reached:
            reached.add(value)
            todo += sources.get(value, ())
    return {name for name in parameters if f"%{name}" in reached}


def _split(line: str) -> tuple[list[str], str]:
    """The values that a line defines, and the rest of it."""
    match = re.match(rf"(({_VALUE})(?::(\d+))?) = (.*)", line)
    if match is None:
        return [], line
    _, name, count, rest = match.groups()
    return ([f"{name}#{i}" for i in range(int(count))] if count else [name]), rest
