"""The kernels of a program: their configurations, of which a launch takes the first that holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch

from ._errors import TraceError
from ._kernels import Specialization, Variant, compile_variant, identifier
from ._recording import Descriptor, Launch, Recording
from ._symbols import Symbols


@dataclasses.dataclass
class Run:
    """One run of the function and its sizes."""

    recording: Recording
    symbols: Symbols


class Configurations:
    """`entries` and `files` grow as entry() is asked for launches; `archs` is asked first then."""

    def __init__(self, name: str, runs: list[Run], archs: Callable[[], list[int]]):
        self.name, self.runs, self.archs = name, runs, archs
        self.entries: dict[str, dict] = {}
        self.files: dict[str, tuple[str, bytes]] = {}  # metadata and machine code
        self._names: dict[tuple, str] = {}  # of entries, by what is compiled
        self._compiled: dict[tuple, str] = {}
        self._writes: dict[str, set[str]] = {}

    def grid(self, step: Launch, symbols: Symbols) -> list:
        texts = []
        for extent in step.grid:
            try:
                texts.append(symbols.text(symbols.expression(extent)))
            except TraceError as error:
                raise TraceError(
                    f"{self.name}: kernel {step.function.__name__}: its grid: {error}"
                ) from None
        while len(texts) > 1 and texts[-1] == 1:
            texts.pop()
        return texts

    def used_files(self) -> dict[str, tuple[str, bytes]]:
        """Without those of configurations that were dropped."""
        configurations = [c for entry in self.entries.values() for c in entry["configurations"]]
        named = {b["triton"].removesuffix(".json") for c in configurations for b in c["binaries"]}
        return {stem: file for stem, file in self.files.items() if stem in named}

    def entry(self, at: int, step: Launch) -> str:
        """The name of the entry that a launch's configurations are in."""
        choices = self._choices(at, step)
        types = dict(
            Specialization(step, self.runs[0].recording, self.runs[0].symbols, self.name)
            .general()[0]
            .types
        )
        parameters = [
            {"name": p.name, "type": self._type(p, step, types)} for p in step.function.params
        ]
        several = len(choices) > 1
        key = (
            id(step.function),
            str([(p["name"], p["type"]) for p in parameters if p["type"] not in ("i32", "i64")]),
            str(
                [
                    (
                        when,
                        sorted(launch.tuned.items()),
                        sorted(launch.options.items()),
                        self._constexprs(launch),
                        self.grid(launch, run.symbols) if several else None,
                    )
                    for when, launch, run in choices
                ]
            ),
        )
        if key not in self._names:
            base = identifier(step.function.__name__)
            name = next(
                n for n in (base, *(f"{base}_{i}" for i in range(2, 1000))) if n not in self.entries
            )
            self._names[key] = name
            self.entries[name] = {"parameters": parameters, "configurations": []}
        name = self._names[key]
        configurations = self.entries[name]["configurations"]
        for when, launch, run in choices:
            special = [
                Specialization(r.recording.steps[at], r.recording, r.symbols, self.name).example()
                for r in (self.runs if not several else [run])
            ]
            general = Specialization(launch, run.recording, run.symbols, self.name).general()
            for variant in [*special, *general]:
                entry = self._configuration(name, launch, variant, parameters)
                if when is not None:
                    entry["when"] = when
                if several:
                    entry["grid"] = self.grid(launch, run.symbols)
                if entry not in configurations:
                    configurations.append(entry)
        self._drop_special(configurations)
        if not several:  # those that ask for more go first
            configurations.sort(
                key=lambda c: (
                    -len(c.get("constants", {})),
                    -len(c.get("divisible_by", {})),
                    len(c.get("types", {})),
                )
            )
        return name

    def _drop_special(self, configurations: list[dict]) -> None:
        """A configuration that asks for more than another, and is the same machine code."""

        def code(entry):
            return [self.files[b["triton"].removesuffix(".json")] for b in entry["binaries"]]

        def rest(entry):
            return {k: v for k, v in entry.items() if k not in ("divisible_by", "binaries")}

        for entry in list(configurations):
            asks = entry.get("divisible_by", {})
            if any(
                rest(o) == rest(entry)
                and o.get("divisible_by", {}).items() < asks.items()
                and code(o) == code(entry)
                for o in configurations
            ):
                configurations.remove(entry)

    def _choices(self, at: int, step: Launch):
        """What autotuners chose at the examples, as (condition, launch, run): the first whose
        condition holds counts."""
        launches = [(run.recording.steps[at], run) for run in self.runs]
        distinct = {
            str(sorted(launch.tuned.items())): (launch, run) for launch, run in reversed(launches)
        }
        varying = [k for k in step.keys if isinstance(step.arguments.get(k), torch.SymInt)]
        if len(distinct) == 1 or len(varying) != 1:
            return [(None, *launches[0])]
        # By size: what was chosen at one example holds up to the next.
        at_value = {}
        for launch, run in launches:
            at_value[run.symbols.at_example(launch.arguments[varying[0]])] = (launch, run)
        values = sorted(at_value, reverse=True)
        chosen = [(f"{varying[0]} >= {v}", *at_value[v]) for v in values]
        chosen[-1] = (None, *at_value[values[-1]])
        return chosen

    def _constexprs(self, launch: Launch) -> str:
        return str(
            [
                (p.name, repr(launch.arguments[p.name]))
                for p in launch.function.params
                if p.is_constexpr or launch.arguments[p.name] is None
            ]
        )

    def _type(self, parameter, step: Launch, types: dict[str, str]) -> str:
        if parameter.is_constexpr:
            return "constexpr"
        if step.arguments[parameter.name] is None:
            return "*"
        kind = types[parameter.name]
        return "i32" if kind == "constexpr" else kind

    def _configuration(self, kernel: str, launch: Launch, variant: Variant, parameters) -> dict:
        entry: dict[str, Any] = {}
        constants = {}
        for name, value in variant.constants:
            plain = isinstance(value, (bool, int, str)) or value is None
            constants[name] = value if plain else str(value)
        if constants:
            entry["constants"] = constants
        if variant.divisible:
            entry["divisible_by"] = {
                name: 16 for name, _ in variant.types if name in variant.divisible
            }
        declared = {p["name"]: p["type"] for p in parameters}
        types = {
            n: t
            for n, t in variant.types
            if t not in ("constexpr", declared[n]) and not t.startswith("*")
        }
        if types:
            entry["types"] = types
        entry["binaries"] = [
            {"triton": f"{self._binary(kernel, launch, variant, arch)}.json"}
            for arch in self.archs()
        ]
        return entry

    def _binary(self, kernel: str, launch: Launch, variant: Variant, arch: int) -> str:
        key = (id(launch.function), variant, arch)
        try:
            found = self._compiled.get(key)
        except TypeError:  # a constant that has no hash
            key = (id(launch.function), repr(variant), arch)
            found = self._compiled.get(key)
        if found is None:
            compiled = compile_variant(self.name, launch.function, variant, arch)
            number = sum(
                1
                for stem in self.files
                if stem.startswith(f"{kernel}.") and stem.endswith(f".sm_{arch}")
            )
            found = f"{kernel}.{number}.sm_{arch}"
            self.files[found] = (compiled.metadata, compiled.cubin)
            self._compiled[key] = found
            self._writes[found] = compiled.writes
        self._check_writes(launch, self._writes[found])
        return found

    def _check_writes(self, launch: Launch, writes: set[str]) -> None:
        for name in sorted(writes):
            value = launch.arguments[name]
            view = value.view if isinstance(value, Descriptor) else value
            storage = self.runs[0].recording.storages[view.storage]
            if storage.role != "temporary":
                which = f"the input {storage.name}" if storage.role == "input" else "a constant"
                raise TraceError(
                    f"{self.name}: kernel {launch.function.__name__}: it writes to its argument "
                    f"{name}, which is {which}; "
                    "a program only writes to what it allocates"
                )
