"""A transformer block of Triton kernels and Attune's attention, which `attune wrap` makes a C++ program of.

RMSNorm, the projection of q, k and v, RoPE, causal attention with grouped heads, the output projection with its
residual, and a SwiGLU MLP; x and the weights are bfloat16, sums are float32. block() is what a model calls; main() traces it:

    python examples/triton_block.py FOLDER            # on a GPU; else with --arch sm_90
    attune wrap FOLDER/block.json -o FOLDER/package --check FOLDER/block.recording.safetensors
"""

import argparse

import torch
import triton
import triton.language as tl

import attune
import attune.wrap

HEADS, KV_HEADS, HEAD_DIM = 8, 2, 64
HIDDEN, MLP = HEADS * HEAD_DIM, 1408
QKV = (HEADS + 2 * KV_HEADS) * HEAD_DIM
EPSILON, BASE = 1e-5, 10000.0


@triton.jit
def rms_norm(x, weight, out, epsilon, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """A program a row: x / sqrt(mean(x²) + ε) · weight (Zhang and Sennrich, 2019, arXiv:1910.07467)."""
    row = tl.program_id(0).to(tl.int64) * COLUMNS
    at = tl.arange(0, BLOCK)
    inside = at < COLUMNS
    values = tl.load(x + row + at, mask=inside, other=0.0).to(tl.float32)
    scale = 1.0 / tl.sqrt(tl.sum(values * values) / COLUMNS + epsilon)
    values = values * scale * tl.load(weight + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row + at, values.to(out.dtype.element_ty), mask=inside)


@triton.autotune(
    [
        triton.Config({"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 64}, num_warps=4, num_stages=3),
        triton.Config({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64}, num_warps=8, num_stages=3),
    ],
    key=["columns", "inner"],
)
@triton.jit
def linear(x, weight, residual, out, rows, columns, inner, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
           BLOCK_K: tl.constexpr):  # fmt: skip
    """out = x weightᵀ (+ residual): x [rows, inner], weight [columns, inner]."""
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    k = tl.arange(0, BLOCK_K)
    m64 = m.to(tl.int64)[:, None]
    sums = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for start in range(0, inner, BLOCK_K):
        there = start + k < inner
        a = tl.load(x + m64 * inner + (start + k)[None, :], mask=(m < rows)[:, None] & there[None, :], other=0.0)
        b = tl.load(weight + n[None, :] * inner + (start + k)[:, None], mask=(n < columns)[None, :] & there[:, None],
                    other=0.0)
        sums = tl.dot(a, b, sums)
    place = m64 * columns + n[None, :]
    inside = (m < rows)[:, None] & (n < columns)[None, :]
    if residual is not None:
        sums += tl.load(residual + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + place, sums.to(out.dtype.element_ty), mask=inside)


@triton.jit
def rope(x, length, HEADS: tl.constexpr, ROW: tl.constexpr, DIM: tl.constexpr, LOG_BASE: tl.constexpr):
    """Rotates the first HEADS heads of each row of x, in place: pairs (i, i + DIM / 2) by
    position · base^(-2i / DIM) (Su et al., 2021, arXiv:2104.09864)."""
    token = tl.program_id(0)
    HALF: tl.constexpr = DIM // 2
    at = tl.arange(0, HALF)
    angle = (token % length).to(tl.float32) * tl.exp(at.to(tl.float32) * (-LOG_BASE / HALF))
    cosine, sine = tl.cos(angle), tl.sin(angle)
    for head in range(HEADS):
        first = x + token.to(tl.int64) * ROW + head * DIM + at
        a, b = tl.load(first).to(tl.float32), tl.load(first + HALF).to(tl.float32)
        tl.store(first, (a * cosine - b * sine).to(x.dtype.element_ty))
        tl.store(first + HALF, (b * cosine + a * sine).to(x.dtype.element_ty))


@triton.jit
def swiglu(both, out, rows, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """silu(gate) · up of rows [gate, up] (Shazeer, 2020, arXiv:2002.05202)."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    row, column = at // COLUMNS, at % COLUMNS
    inside = row < rows
    gate = tl.load(both + row * (2 * COLUMNS) + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(both + row * (2 * COLUMNS) + COLUMNS + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask=inside)


def normalized(x, weight):
    """[rows, HIDDEN]"""
    out = torch.empty_like(x)
    rms_norm[(x.shape[0],)](x, weight, out, EPSILON, HIDDEN, triton.next_power_of_2(HIDDEN))
    return out


def projected(x, weight, residual=None):
    """[rows, inner] by [columns, inner]"""
    rows, (columns, inner) = x.shape[0], weight.shape
    out = torch.empty(rows, columns, dtype=x.dtype, device=x.device)

    def grid(meta):
        return triton.cdiv(rows, meta["BLOCK_M"]), triton.cdiv(columns, meta["BLOCK_N"])

    linear[grid](x, weight, residual, out, rows, columns, inner)
    return out


def block(x, attention_norm, wqkv, wo, mlp_norm, wup, wdown):
    """x: [B, S, HIDDEN], and so is the result."""
    b, s, _ = x.shape
    rows = b * s
    x = x.view(rows, HIDDEN)
    qkv = projected(normalized(x, attention_norm), wqkv)
    rope[(rows,)](qkv, s, HEADS + KV_HEADS, QKV, HEAD_DIM, 9.210340371976184)  # log(BASE)
    heads = qkv.view(b, s, HEADS + 2 * KV_HEADS, HEAD_DIM)
    q, k, v = heads.split([HEADS, KV_HEADS, KV_HEADS], dim=2)
    attended = attune.attention(q, k, v, mask="causal")
    x = projected(attended.view(rows, HIDDEN), wo, residual=x)
    both = projected(normalized(x, mlp_norm), wup)
    hidden = torch.empty(rows, MLP, dtype=x.dtype, device=x.device)
    swiglu[(triton.cdiv(rows * MLP, 1024),)](both, hidden, rows, MLP, 1024)
    return projected(hidden, wdown, residual=x).view(b, s, HIDDEN)


def reference(x, attention_norm, wqkv, wo, mlp_norm, wup, wdown):
    """The block in float64, by PyTorch alone."""
    x, *weights = (t.double() for t in (x, attention_norm, wqkv, wo, mlp_norm, wup, wdown))
    attention_norm, wqkv, wo, mlp_norm, wup, wdown = weights
    b, s, _ = x.shape

    def normalized(x, weight):
        return x / (x.square().mean(-1, keepdim=True) + EPSILON).sqrt() * weight

    def rotated(heads):
        first, second = heads.chunk(2, dim=-1)
        rates = BASE ** (-torch.arange(HEAD_DIM // 2, device=x.device).double() * 2 / HEAD_DIM)
        angles = torch.arange(s, device=x.device).double()[:, None, None] * rates
        cosine, sine = angles.cos(), angles.sin()
        return torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1)

    heads = (normalized(x, attention_norm) @ wqkv.T).view(b, s, -1, HEAD_DIM)
    q, k, v = heads.split([HEADS, KV_HEADS, KV_HEADS], dim=2)
    q, k, v = (t.transpose(1, 2) for t in (rotated(q), rotated(k), v))
    k, v = (t.repeat_interleave(HEADS // KV_HEADS, dim=1) for t in (k, v))
    scores = (q @ k.transpose(-1, -2) / HEAD_DIM**0.5).masked_fill(
        torch.ones(s, s, dtype=torch.bool, device=x.device).triu(1), float("-inf"))  # fmt: skip
    attended = scores.softmax(-1) @ v
    x = x + attended.transpose(1, 2).reshape(b, s, -1) @ wo.T
    gate, up = (normalized(x, mlp_norm) @ wup.T).chunk(2, dim=-1)
    return x + (torch.nn.functional.silu(gate) * up) @ wdown.T


def make_weights(device, seed=0):
    """Of block(), by name."""
    source = torch.Generator("cpu").manual_seed(seed)

    def matrix(columns, inner):
        values = torch.randn(columns, inner, generator=source) / inner**0.5
        return values.to(device, torch.bfloat16)

    def norm():
        return (1 + 0.1 * torch.randn(HIDDEN, generator=source)).to(device, torch.bfloat16)

    return {"attention_norm": norm(), "wqkv": matrix(QKV, HIDDEN), "wo": matrix(HIDDEN, HIDDEN),
            "mlp_norm": norm(), "wup": matrix(2 * MLP, HIDDEN), "wdown": matrix(HIDDEN, MLP)}  # fmt: skip


def traced(device, archs=None, b=2, s=256):
    """block() as a program that is open in the batch and the length."""
    x = torch.randn(b, s, HIDDEN, device=device).to(torch.bfloat16)
    return attune.wrap.trace(
        block,
        {"x": x},
        shapes={"x": ("B", "S", None)},
        sizes={"B": attune.wrap.Size(max=64), "S": attune.wrap.Size(max=8192)},
        constants=make_weights(device),
        archs=archs,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--arch", help="compile for this GPU, e.g. sm_90, without one")
    options = parser.parse_args()
    device = "cpu" if options.arch else "cuda"
    path = traced(device, [options.arch] if options.arch else None).save(options.folder)
    print(f"{path}: attune wrap {path} -o DIR")


if __name__ == "__main__":
    main()
