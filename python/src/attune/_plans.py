"""Plans, explanations and the table of kernels."""

from __future__ import annotations

from dataclasses import dataclass, field

from . import _blockmap, _core, _frameworks, _options


@dataclass(frozen=True)
class KernelInfo:
    """A row of the table of kernels."""

    id: str
    family: str  # "cpu", "portable"
    kind: str  # "forward", "backward"
    dtype: str  # "f32", "f16", "bf16", "f8e4m3"
    isa: str  # of the CPU; "" for GPUs
    arch_begin: int  # the first compute capability that runs it, as 10 * major + minor; 0 for CPUs
    arch_end: int  # the first that no longer does; 0 when all later ones do
    missing: str  # why this machine can't run it; "" when it can

    @property
    def available(self) -> bool:
        return not self.missing


def list_kernels() -> list[KernelInfo]:
    """Every kernel, in order of preference: the first that serves a problem is used."""
    return [KernelInfo(**row) for row in _core.kernels()]


@dataclass(frozen=True)
class Candidate:
    """A kernel that was looked at, and every reason against it; without one it would serve."""

    kernel: str
    reasons: list[str]
    note: str
    chosen: bool


@dataclass(frozen=True)
class Explanation:
    """Which kernel a problem gets, and why not the others. Prints as a table; notebooks draw the
    problem's mask over the kernel's tiles as well."""

    problem: str  # as text, normalised
    kernel: str  # the chosen one's id; "" when none serves
    device: str  # the GPU's name; "" on the CPU
    tile: tuple[int, int]  # query rows and keys that are computed at a time
    candidates: list[Candidate] = field(repr=False)
    text: str = field(repr=False)

    def __str__(self) -> str:
        return self.text

    def svg(self) -> str:
        """The block map as SVG: which tiles are skipped, masked within, or free of masking."""
        return _blockmap.svg(self.problem, self.tile)

    def _repr_html_(self) -> str:
        import html

        return f"<pre>{html.escape(self.text)}</pre>{self.svg()}"


def problem_text(q, k, v, *, out=None, lse=False, backward=False, **options) -> str:
    """The problem that attention(q, k, v, ...) solves, as text; the arguments are attention()'s.

    backward: True for the gradients of q, k and v, or the names of those beside them: "lse" (one
    that flows in), "bias", "sink", "alibi_slopes". No array's contents are read.
    """
    if options.get("dropout", 0.0) > 0:
        options.setdefault("dropout_seed", 0)  # no part of a problem
    names = () if backward is True else backward
    unknown = set(names or ()) - set(_GRADIENTS)
    if unknown:
        raise ValueError(f"backward = {backward!r}: there is no gradient of {sorted(unknown)}")
    wanted = None if backward is False else tuple(name in names for name in _GRADIENTS)
    return _core.problem(q, k, v, out, lse is not False, wanted, _options.pack(**options))


_GRADIENTS = ("lse", "bias", "sink", "alibi_slopes")


def _text_of(problem, k, v, options: dict) -> str:
    if not isinstance(problem, str):
        return problem_text(problem, k, v, **options)
    if k is not None or v is not None or options:
        raise TypeError("a problem that is text says everything: there is nothing beside it")
    return problem


def explain(
    problem, k=None, v=None, *, kernel="", threads=0, device_index=-1, arch="", **options
) -> Explanation:
    """Which kernel a problem gets, and every reason against the others.

    problem: as text, e.g. "forward dtype=bf16 b=2 hq=16 hkv=4 sq=1024 sk=1024 d=128
        mask=causal-bottom-right device=cuda"; or q, followed by k, v and problem_text()'s arguments:
        explain(q, k, v, mask="causal")
    kernel: as if this id had been asked for
    arch: as if this machine had such a GPU, e.g. "sm_86"; the problem then says device=cuda

    Errors: ValueError for an invalid problem. A problem that no kernel serves is none: it is what
    the explanation says.
    """
    text = _text_of(problem, k, v, options)
    found = _core.explain(text, kernel, threads, device_index, arch)
    candidates = [
        Candidate(c["kernel"], c["reasons"], c["note"], c["kernel"] == found["kernel"])
        for c in found.pop("candidates")
    ]
    return Explanation(candidates=candidates, **found)


class Plan:
    """Everything decided for one problem: kernel, tiles, workspace. run() only computes."""

    def __init__(self, problem: str, *, kernel="", threads=0, device_index=-1):
        self._plan = _core.Plan.make(problem, kernel, threads, device_index)

    @property
    def problem(self) -> str:
        """The problem as text, normalised."""
        return self._plan.problem

    @property
    def kernel(self) -> str:
        """The chosen kernel's id."""
        return self._plan.kernel

    @property
    def threads(self) -> int:
        """Threads of the CPU; 0 on a GPU."""
        return self._plan.threads

    @property
    def device_index(self) -> int:
        """The GPU's number; -1 on the CPU."""
        return self._plan.device_index

    @property
    def workspace_bytes(self) -> int:
        """Bytes of scratch memory that run() needs."""
        return self._plan.workspace_bytes

    def explain(self) -> str:
        return self._plan.explain()

    def prepare(self) -> None:
        """On a GPU: compiles the kernel if need be and loads it, so that no run has to."""
        self._plan.prepare()

    def run(
        self, *, workspace=None, dropout_seed=0, dropout_offset=0, stream=None, **arrays
    ) -> None:
        """Computes, writing to the arrays o, lse and grad_* that are given.

        arrays: q, k, v, o, ... by their names in include/attune/arguments.hpp, in the shapes given
        there. workspace: uint8 [workspace_bytes] on the problem's device; None has it allocated.

        Errors: as attune.attention(). Nothing is written then.
        """
        q = arrays.get("q")
        if stream is None and q is not None and not _core.can_allocate(q):
            stream = _frameworks.current_stream(q)
        self._plan.run(
            arrays, workspace, dropout_seed, dropout_offset, -1 if stream is None else stream
        )

    def __repr__(self) -> str:
        return f"<attune.Plan {self.problem!r}: {self.kernel}>"


def plan(problem, k=None, v=None, *, kernel="", threads=0, device_index=-1, **options) -> Plan:
    """Decides for a problem, given as text or by its arrays, as in explain().

    Errors: ValueError for an invalid problem, UnsupportedError when no kernel here serves it.
    """
    text = _text_of(problem, k, v, options)
    return Plan(text, kernel=kernel, threads=threads, device_index=device_index)
