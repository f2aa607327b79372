"""Sizes that a program keeps open: PyTorch's symbolic integers inside, `attune wrap`'s expressions
outside."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy
import sympy
import torch
from torch._dynamo.source import ConstantSource
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StrictMinMaxConstraint
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from ._errors import TraceError

# More combinations of sizes than these are not tried out to see whether something always holds.
_MOST_COMBINATIONS = 1 << 24


@dataclasses.dataclass(frozen=True)
class Size:
    """The values that a size of a program may have: from min to max, and multiples of
    multiple_of."""

    min: int = 1
    max: int = 1 << 20
    multiple_of: int = 1

    def __post_init__(self):
        if not (0 <= self.min <= self.max and self.multiple_of >= 1 and self.most_units >= 2):
            raise ValueError(
                f"{self} has fewer than two values; leave a size out of `shapes` to fix it"
            )

    @property
    def most_units(self) -> int:
        return self.max // self.multiple_of

    def holds(self, value: int) -> bool:
        return self.min <= value <= self.max and value % self.multiple_of == 0


class Symbols:
    """The sizes of one run of the function: symbols, or with `values` plain numbers.

    PyTorch takes sizes of 0 and 1 for special, so a symbol stands for 2 and more (in units of its
    multiple_of); what that hides is found by running at the least sizes as plain numbers.
    """

    def __init__(self, sizes: dict[str, Size], example: dict[str, int], symbolic: bool):
        self.sizes = sizes
        self.example = example
        self.symbolic = symbolic
        self.env = ShapeEnv(duck_shape=False) if symbolic else None
        self._names: dict[sympy.Symbol, str] = {}
        self._floats: dict[sympy.Symbol, str] = {}
        self._numbers: dict[str, Any] = {}

    def number(self, name: str):
        """The size as the function gets it."""
        if not self.symbolic:
            return self.example[name]
        if name not in self._numbers:
            size = self.sizes[name]
            least = max(2, -(-size.min // size.multiple_of))
            hint = max(least, self.example[name] // size.multiple_of)
            source = ConstantSource(f"{name}_units")
            symbol = self.env.create_symbol(
                hint,
                source=source,
                dynamic_dim=DimDynamic.DYNAMIC,
                constraint_dim=StrictMinMaxConstraint(
                    vr=ValueRanges(least, size.most_units), warn_only=False
                ),
            )
            self._names[symbol] = name
            unit = self.env.create_symintnode(symbol, hint=hint, source=source)
            self._numbers[name] = unit * size.multiple_of
        return self._numbers[name]

    def scalar(self, name: str, value: float):
        """A float that calls bring."""
        if not self.symbolic:
            return value
        source = ConstantSource(name)
        symbol = self.env.create_unspecified_symbol(
            value, source=source, dynamic_dim=DimDynamic.DYNAMIC
        )
        self._floats[symbol] = name
        return self.env.create_symfloatnode(symbol, hint=value, source=source)

    def scalar_name(self, value: torch.SymFloat) -> str | None:
        """Which scalar it is; None where it was computed from one."""
        return self._floats.get(value.node.expr)

    @staticmethod
    def expression(value) -> sympy.Expr:
        return value.node.expr if isinstance(value, torch.SymInt) else sympy.Integer(value)

    def evaluate(self, expression: sympy.Expr, sizes: dict[str, int]) -> int:
        """The expression's value where the sizes have these."""
        units = {s: sizes[n] // self.sizes[n].multiple_of for s, n in self._names.items()}
        return int(expression.subs(units))

    def at_example(self, value) -> Any:
        """A number in place of a symbolic one, as it is at the example's sizes."""
        if isinstance(value, torch.SymInt):
            return self.evaluate(value.node.expr, self.example)
        if isinstance(value, torch.SymFloat):
            return value.node.hint
        return value

    def bounds(self, expression: sympy.Expr) -> tuple[int, int]:
        ranges = {
            symbol: ValueRanges(
                -(-self.sizes[name].min // self.sizes[name].multiple_of),
                self.sizes[name].most_units,
            )
            for symbol, name in self._names.items()
        }
        found = bound_sympy(expression, ranges)
        return tuple(
            int(b) if b.is_finite else (-(1 << 63) if b < 0 else 1 << 63)
            for b in (found.lower, found.upper)
        )

    @staticmethod
    def divisor(expression: sympy.Expr) -> int:
        """A number that divides it, whatever the sizes are; 0 of 0."""
        return math.gcd(
            *(
                int(c) if (c := term.as_coeff_Mul()[0]).is_integer else 1
                for term in sympy.Add.make_args(sympy.expand(expression))
            )
        )

    def text(self, expression: sympy.Expr) -> int | str:
        """As `attune wrap` reads it."""
        if expression.is_Integer:
            return int(expression)
        return _Printer(self).text(expression)

    def check_course(self, what: str) -> None:
        """Refuses what the function decided by comparing sizes, unless all sizes decide alike."""
        if not self.symbolic:
            return
        for guard in self.env.guards:
            if self._always(guard.expr):
                continue
            try:
                held = _Printer(self).text(guard.expr)
            except TraceError:
                held = str(guard.expr)
            where = getattr(guard.sloc, "user_stack", None) or getattr(guard, "stack", None)
            line = f" ({str(where).strip()})" if where else ""
            sizes = ", ".join(f"{n} = {v}" for n, v in self.example.items())
            raise TraceError(
                f"{what}: its course depends on the sizes: {held} held at {sizes}{line}, but not "
                "at every size "
                "in their ranges. Narrow them by `sizes` (min, max, multiple_of), or trace a "
                "program for each case"
            )

    def _always(self, condition) -> bool:
        names = [self._names[s] for s in condition.free_symbols if s in self._names]
        if len(names) != len(condition.free_symbols):
            return False
        axes = [
            numpy.arange(size.min + -size.min % size.multiple_of, size.max + 1, size.multiple_of)
            for size in (self.sizes[name] for name in names)
        ]
        if math.prod(len(axis) for axis in axes) > _MOST_COMBINATIONS:
            return False
        try:
            text = _Printer(self).text(condition)
        except TraceError:
            return False
        grids = numpy.meshgrid(*axes, indexing="ij", sparse=True)
        names_of = dict(zip(names, grids))
        names_of.update(ceildiv=lambda a, b: -(-a // b), min=numpy.minimum, max=numpy.maximum)
        with numpy.errstate(divide="ignore"):
            return bool(numpy.all(eval(text, {"__builtins__": {}}, names_of)))


class _Printer:
    """Expressions of sympy as text over sizes."""

    _RELATIONS = {"Equality": "==", "Unequality": "!=", "LessThan": "<=", "StrictLessThan": "<",
                  "GreaterThan": ">=", "StrictGreaterThan": ">"}  # fmt: skip

    def __init__(self, symbols: Symbols):
        self.symbols = symbols

    def text(self, e) -> str:
        kind = type(e).__name__
        if e.is_Integer:
            return str(e)
        if e.is_Symbol:
            return self._product(1, [e])
        if e.is_Add:
            return self._sum(e)
        if e.is_Mul:
            coefficient, rest = e.as_coeff_Mul()
            if coefficient.is_Integer:
                return self._product(int(coefficient), list(sympy.Mul.make_args(rest)))
        if e.is_Pow and e.exp.is_Integer and e.exp > 0:
            return self._product(1, [e.base] * int(e.exp))
        if kind in self._RELATIONS:
            return f"{self.text(e.lhs)} {self._RELATIONS[kind]} {self.text(e.rhs)}"
        if kind in ("Max", "Min"):
            first, *others = (self.text(a) for a in sorted(e.args, key=sympy.default_sort_key))
            for other in others:
                first = f"{kind.lower()}({first}, {other})"
            return first
        if kind in ("FloorDiv", "CleanDiv"):
            return self._quotient(*e.args)
        if kind in ("Mod", "PythonMod"):
            return f"{self._factor(e.args[0])} % {self._factor(e.args[1])}"
        if kind in ("CeilToInt", "FloorToInt", "TruncToInt"):
            (argument,) = e.args
            if type(argument).__name__ == "IntTrueDiv":
                above, below = argument.args
                if kind == "CeilToInt":
                    return f"ceildiv({self.text(above)}, {self.text(below)})"
                return f"{self._factor(above)} // {self._factor(below)}"
        raise TraceError(f"{e} is no expression of + - * // % ceildiv min max over sizes")

    def _quotient(self, above, below) -> str:
        # (x + b - 1) // b
        if below.is_Integer and above.is_Add and above.as_coeff_Add()[0] == below - 1:
            return f"ceildiv({self.text(above - below + 1)}, {below})"
        if (rest := sympy.expand(above - below + 1)).is_polynomial() and below.free_symbols:
            if not rest.has(*below.free_symbols):
                return f"ceildiv({self.text(rest)}, {self.text(below)})"
        return f"{self._factor(above)} // {self._factor(below)}"

    def _factor(self, e) -> str:
        text = self.text(e)
        return text if text.isidentifier() or text.isdigit() or _is_call(text) else f"({text})"

    def _sum(self, e) -> str:
        text = ""
        terms = sorted(e.args, key=lambda t: (bool(t.is_Integer), sympy.default_sort_key(t)))
        for term in sorted(terms, key=lambda t: bool(t.as_coeff_Mul()[0] < 0)):
            negative = term.as_coeff_Mul()[0] < 0
            part = self._product(1, [-term]) if negative else self.text(term)
            text += (
                f"{' - ' if text else '0 - '}{part}"
                if negative
                else f"{' + ' if text else ''}{part}"
            )
        return text

    def _product(self, coefficient: int, factors: list) -> str:
        """Of integers, where a symbol is a size in units of its multiple_of."""
        texts, bases = [], []
        for factor in factors:
            for base in [factor.base] * int(factor.exp) if factor.is_Pow else [factor]:
                bases += sympy.Mul.make_args(base)
        for number in [base for base in bases if base.is_Integer]:
            coefficient *= int(number)
        for base in [base for base in bases if not base.is_Integer]:
            name = self.symbols._names.get(base)
            if name is None:
                if base.is_Symbol:
                    raise TraceError(f"{base} is no size of the program")
                texts.append(self._factor(base))
                continue
            unit = self.symbols.sizes[name].multiple_of
            if coefficient % unit == 0:
                coefficient //= unit
                texts.append(name)
            else:
                alone = len(bases) == 1 and coefficient == 1
                texts.append(f"{name} // {unit}" if alone else f"({name} // {unit})")
        if coefficient != 1 or not texts:
            texts.append(str(coefficient) if coefficient >= 0 else f"(0 - {-coefficient})")
        return " * ".join(texts)


def _is_call(text: str) -> bool:
    """Whether it is one call, such as ceildiv(S, 64), and nothing beside."""
    name, bracket, rest = text.partition("(")
    if not bracket or not name.isidentifier() or not rest.endswith(")"):
        return False
    depth = 1
    for at, character in enumerate(rest):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0:
            return at == len(rest) - 1
    return False
