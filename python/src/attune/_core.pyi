"""The extension: the C++ API as the Python files beside it call it. Nothing here is public."""

from typing import Any

version: str

class UnsupportedError(NotImplementedError): ...
class DeviceError(RuntimeError): ...

class Plan:
    @staticmethod
    def make(text: str, kernel: str, threads: int, device_index: int) -> Plan: ...
    @property
    def problem(self) -> str: ...
    @property
    def kernel(self) -> str: ...
    @property
    def threads(self) -> int: ...
    @property
    def device_index(self) -> int: ...
    @property
    def workspace_bytes(self) -> int: ...
    def explain(self) -> str: ...
    def prepare(self) -> None: ...
    def run(
        self,
        tensors: dict[str, Any],
        workspace: Any | None,
        dropout_seed: int,
        dropout_offset: int,
        stream: int,
    ) -> None: ...

# `out`: an array or None; `lse`: an array, True or False; `options`: _options.pack().
# Returns o, or (o, lse).
def forward(q: Any, k: Any, v: Any, out: Any | None, lse: Any, options: tuple) -> Any: ...

# PyTorch's eager mode. attend(): forward(), recorded where gradients are wanted; NotImplemented where
# more than autograd looks on, or where `demands` (0: none, 1: [B, H, S, D], 2: and as many heads in all)
# are not met. record(): the forward of what `apply` in take_torch() applies to q, k, v and options.
def attend(
    q: Any, k: Any, v: Any, out: Any | None, lse: Any, options: tuple, demands: int
) -> Any: ...
def record(context: Any, q: Any, k: Any, v: Any, options: tuple, /) -> Any: ...
def take_torch(
    tensor: type,
    get_num_threads: Any,
    is_grad_enabled: Any,
    count_modes: Any,
    transforms: Any,
    apply: Any,
) -> None: ...

# `grads`: places of (grad_q, grad_k, grad_v, grad_bias, grad_alibi_slopes, grad_sink), each an
# array, True to have it allocated, or False. Returns them, None for what is False.
def backward(
    grad_o: Any,
    grad_lse: Any | None,
    q: Any,
    k: Any,
    v: Any,
    o: Any,
    lse: Any,
    grads: tuple,
    options: tuple,
) -> tuple: ...

# `backward`: None, or whether (grad_lse, grad_bias, grad_sink, grad_alibi_slopes) are there.
def problem(
    q: Any, k: Any, v: Any, out: Any | None, lse: bool, backward: tuple | None, options: tuple
) -> str: ...
def can_allocate(array: Any) -> bool: ...
def explain(
    problem: str, kernel: str, threads: int, device_index: int, arch: str
) -> dict[str, Any]: ...
def kernels() -> list[dict[str, Any]]: ...
