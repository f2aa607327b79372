"""Recording programs for `attune wrap`: from Triton kernels and attention in Python to C++ that
stands alone.

trace() runs a function once and writes down what it launches, with every size that you name kept
as a symbol. Program.save() writes what `attune wrap` reads (docs/wrap.md of the repository). Needs
PyTorch, Triton and NumPy."""

from ._errors import TraceError
from ._program import Program
from ._symbols import Size
from ._trace import trace

__all__ = ["Program", "Size", "TraceError", "trace"]
