"""The functions of flash-attn 2, computed by Attune: https://github.com/Dao-AILab/flash-attention

Beyond them: float32, any head dim, CPUs, gradients with any mask. Rows with nothing to attend to are
0 as there, but their LSE is -inf, not +inf. The third result of return_attn_probs, a matrix that
flash-attn makes for its own tests, is None.
"""

from .dense import flash_attn_func, flash_attn_kvpacked_func, flash_attn_qkvpacked_func
from .kvcache import flash_attn_with_kvcache
from .varlen import (
    flash_attn_varlen_func,
    flash_attn_varlen_kvpacked_func,
    flash_attn_varlen_qkvpacked_func,
)

__all__ = [
    "flash_attn_func",
    "flash_attn_kvpacked_func",
    "flash_attn_qkvpacked_func",
    "flash_attn_varlen_func",
    "flash_attn_varlen_kvpacked_func",
    "flash_attn_varlen_qkvpacked_func",
    "flash_attn_with_kvcache",
]
