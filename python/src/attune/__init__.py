"""Attune: exact fused attention, forward and backward, on any array of DLPack.

attention() takes PyTorch, NumPy, CuPy and JAX arrays; attune.compat has the calls of PyTorch,
flash-attn, xformers and Hugging Face transformers. explain() says which kernel a call gets and why.
"""

from ._attention import Gradients, attention, attention_backward
from ._core import DeviceError, UnsupportedError
from ._core import version as __version__
from ._plans import (
    Candidate,
    Explanation,
    KernelInfo,
    Plan,
    explain,
    list_kernels,
    plan,
    problem_text,
)

__all__ = [
    "Candidate",
    "DeviceError",
    "Explanation",
    "Gradients",
    "KernelInfo",
    "Plan",
    "UnsupportedError",
    "__version__",
    "attention",
    "attention_backward",
    "explain",
    "list_kernels",
    "plan",
    "problem_text",
]
