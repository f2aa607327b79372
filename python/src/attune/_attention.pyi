"""attention() with its arguments by name; _attention.py hands them on together."""

from typing import Any, Literal, NamedTuple, TypeVar, overload

_Array = TypeVar("_Array")
_Mask = Literal["none", "causal", "causal-bottom-right", "causal-top-left"]

class Gradients(NamedTuple):
    q: Any
    k: Any
    v: Any
    bias: Any = ...
    alibi_slopes: Any = ...
    sink: Any = ...

@overload
def attention(
    q: _Array,
    k: Any,
    v: Any,
    *,
    out: Any | None = None,
    lse: Literal[False] = False,
    mask: _Mask | Any | None = None,
    window: tuple[int, int] = (-1, -1),
    diagonal: Literal["bottom-right", "top-left"] = "bottom-right",
    offset: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    bias: Any | None = None,
    alibi_slopes: Any | None = None,
    sink: Any | None = None,
    dropout: float = 0.0,
    dropout_seed: int | None = None,
    dropout_offset: int = 0,
    dropout_state: Any | None = None,
    key_lengths: Any | None = None,
    cu_seqlens_q: Any | None = None,
    cu_seqlens_k: Any | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    page_table: Any | None = None,
    deterministic: bool = False,
    layout: Literal["bshd", "bhsd"] = "bshd",
    threads: int = 0,
    stream: int | None = None,
) -> _Array: ...
@overload
def attention(
    q: _Array,
    k: Any,
    v: Any,
    *,
    lse: Any,
    out: Any | None = None,
    mask: _Mask | Any | None = None,
    window: tuple[int, int] = (-1, -1),
    diagonal: Literal["bottom-right", "top-left"] = "bottom-right",
    offset: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    bias: Any | None = None,
    alibi_slopes: Any | None = None,
    sink: Any | None = None,
    dropout: float = 0.0,
    dropout_seed: int | None = None,
    dropout_offset: int = 0,
    dropout_state: Any | None = None,
    key_lengths: Any | None = None,
    cu_seqlens_q: Any | None = None,
    cu_seqlens_k: Any | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    page_table: Any | None = None,
    deterministic: bool = False,
    layout: Literal["bshd", "bhsd"] = "bshd",
    threads: int = 0,
    stream: int | None = None,
) -> tuple[_Array, _Array]: ...
def attention_backward(
    grad_o: Any,
    q: _Array,
    k: Any,
    v: Any,
    o: Any,
    lse: Any,
    *,
    grad_lse: Any | None = None,
    grad_bias: bool | Any = False,
    grad_alibi_slopes: bool | Any = False,
    grad_sink: bool | Any = False,
    mask: _Mask | Any | None = None,
    window: tuple[int, int] = (-1, -1),
    diagonal: Literal["bottom-right", "top-left"] = "bottom-right",
    offset: int = 0,
    scale: float | None = None,
    softcap: float = 0.0,
    bias: Any | None = None,
    alibi_slopes: Any | None = None,
    sink: Any | None = None,
    dropout: float = 0.0,
    dropout_seed: int | None = None,
    dropout_offset: int = 0,
    dropout_state: Any | None = None,
    key_lengths: Any | None = None,
    cu_seqlens_q: Any | None = None,
    cu_seqlens_k: Any | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    page_table: Any | None = None,
    deterministic: bool = False,
    layout: Literal["bshd", "bhsd"] = "bshd",
    threads: int = 0,
    stream: int | None = None,
) -> Gradients: ...
