"""The functions and biases of xformers.ops (fmha), computed by Attune:
https://facebookresearch.github.io/xformers/components/ops.html

Beyond them: CPUs, any head dim, gradients with every bias and with grouped heads. Rows with nothing to
attend to are 0, their LSE -inf. Pages have no gradient on GPUs.
"""

from . import attn_bias
from ._attention import (
    memory_efficient_attention,
    memory_efficient_attention_backward,
    memory_efficient_attention_forward,
    memory_efficient_attention_forward_requires_grad,
    memory_efficient_attention_partial,
    merge_attentions,
)
from .attn_bias import *  # noqa: F403
from .attn_bias import __all__ as _biases

__all__ = [
    "attn_bias",
    "memory_efficient_attention",
    "memory_efficient_attention_backward",
    "memory_efficient_attention_forward",
    "memory_efficient_attention_forward_requires_grad",
    "memory_efficient_attention_partial",
    "merge_attentions",
    *_biases,
]
