#!/usr/bin/env python3
"""A second opinion on the oracle: attention in numpy, written from the contract alone.

    oracle_numpy.py FOLDER

FOLDER holds what attune_oracle_dump wrote: Problems, their inputs and the oracle's results. Every
result is computed again here, with whole matrices instead of loops, and must agree to 1e-9. Where
there is more than one way to write something, this takes another than the C++ does: the sink is one
more column of the scores, delta is sum(P * dP), the softmax is shifted by the LSE.
"""

import json
import pathlib
import sys

import numpy as np

RELATIVE = 1e-9
ABSOLUTE = 1e-10
MASK32 = np.uint64(0xFFFFFFFF)
SHIFT32 = np.uint64(32)


def philox(seed, block, subsequence, rounds):
    """The four words of Philox4x32, arrays in the shape of the 64-bit `block` and `subsequence`."""
    c0, c1 = block & MASK32, block >> SHIFT32
    c2, c3 = subsequence & MASK32, subsequence >> SHIFT32
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(rounds):
        high0, low0 = c0 * np.uint64(0xD2511F53) >> SHIFT32, c0 * np.uint64(0xD2511F53) & MASK32
        high1, low1 = c2 * np.uint64(0xCD9E8D57) >> SHIFT32, c2 * np.uint64(0xCD9E8D57) & MASK32
        c0, c1, c2, c3 = high1 ^ c1 ^ np.uint64(k0), low1, high0 ^ c3 ^ np.uint64(k1), low0
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return [c0, c1, c2, c3]


def philox_uniform(seed, position):
    """float32 uniforms in (0, 1] at 64-bit positions of the stream of `seed`."""
    block = position // np.uint64(4)
    words = np.choose((position % np.uint64(4)).astype(np.int64),
                      philox(seed, block, np.zeros_like(block), 10))
    return words.astype(np.uint32).astype(np.float32) * np.float32(2.0**-32) + np.float32(2.0**-33)


def philox_bytes(seed, offset, queries, keys):
    """Bytes [queries, keys] of one head of FA2's stream, whose first block is number `offset`.

    16 queries by 32 keys are drawn at once: lane 4r + c has queries r and r + 8, and of every 8 keys
    2c and 2c + 1, its 16 bytes in the order (keys by eights, query's half, key's parity).
    """
    down, across = (queries + 15) // 16, (keys + 31) // 32
    block = np.uint64(offset) + np.arange(32, dtype=np.uint64)[None, None, :]
    patch = (np.arange(down, dtype=np.uint64)[:, None, None] |
             np.arange(across, dtype=np.uint64)[None, :, None] << SHIFT32)
    words = philox(seed, *np.broadcast_arrays(block, patch), 7)
    drawn = np.stack(words, axis=-1).astype("<u4").view(np.uint8)
    drawn = drawn.reshape(down, across, 8, 4, 4, 2, 2)  # ..., r, c, eight, half, parity
    return drawn.transpose(0, 5, 2, 1, 4, 3, 6).reshape(down * 16, across * 32)[:queries, :keys]


def keep_fa2(case, b, queries, keys):
    """[Hq, queries, keys] of sequence b."""
    most = int(np.floor(float(np.float32(1) - np.float32(case.dropout)) * 255))
    heads = [philox_bytes(case.dropout_seed, (case.dropout_offset + (b * case.hq + h) * 32) % 2**64,
                          queries, keys) for h in range(case.hq)]
    return np.stack(heads) <= most


def keep_curand(case, b, i, j):
    """[Hq, i, j] of sequence b."""
    head = b * case.hq + np.arange(case.hq)[:, None, None]
    element = (head * case.sq + i[:, None]) * case.sk + j
    position = element.astype(np.uint64) + np.uint64(case.dropout_offset)
    return philox_uniform(case.dropout_seed, position) > np.float32(case.dropout)


class Case:
    """One dumped Problem. Fields of the Problem are attributes; tensors are in .tensors."""

    def __init__(self, path):
        self.__dict__.update(json.loads(path.read_text()))
        values = np.fromfile(path.with_suffix(".bin"), dtype=np.float64)
        self.tensors = {
            name: values[t["first"]:t["first"] + int(np.prod(t["shape"], dtype=np.int64))]
            .reshape(t["shape"]) for name, t in self.tensors.items()}
        for name in ("key_lengths", "cu_seqlens_q", "cu_seqlens_k", "page_table"):
            if name in self.tensors:
                setattr(self, name, self.tensors[name].astype(np.int64))

    def queries(self, b):
        """Indices of sequence b's rows in q and o."""
        if self.packed_q:
            return 0, np.arange(self.cu_seqlens_q[b], self.cu_seqlens_q[b + 1])
        return b, np.arange(self.sq)

    def keys(self, b):
        """Indices of sequence b's rows in k and v."""
        count, first, outer = self.sk, 0, b
        if self.packed_k:
            first, outer = self.cu_seqlens_k[b], 0
            count = self.cu_seqlens_k[b + 1] - first
        if "key_lengths" in self.tensors:
            count = self.key_lengths[b]
        j = np.arange(count)
        if self.page_size:
            return self.page_table[b][j // self.page_size], j % self.page_size
        return outer, first + j

    def lse_rows(self, b):
        """Index of sequence b's [Hq, Sq_b] part of the LSE."""
        if self.packed_q and not self.padded_lse:
            return slice(None), self.queries(b)[1]
        return b, slice(None), slice(0, len(self.queries(b)[1]))


def visible(case, i, j, shift):
    """The mask without lengths and bias. Python's integers don't overflow."""
    c = np.array([int(x) + (int(shift) if case.bottom_right else 0) + case.offset for x in i],
                 dtype=object)[:, None]
    j = j.astype(object)[None, :]
    seen = np.ones((len(i), j.shape[1]), dtype=bool)
    if seen.size == 0:
        return seen
    if case.causal:
        seen &= (j <= c).astype(bool)
    if case.left >= 0:
        seen &= (c - case.left <= j).astype(bool)
    if case.right >= 0:
        seen &= (j <= c + case.right).astype(bool)
    return seen


def compute(case):
    """All results that the dump holds, by name."""
    t = case.tensors
    out = {name[5:]: np.zeros_like(x) for name, x in t.items() if name.startswith("want_")}
    out["lse"] += np.inf if case.padded_lse else -np.inf
    group = case.hq // case.hkv
    scale = case.d**-0.5 if case.scale is None else case.scale
    heads = np.arange(case.hq)

    for b in range(case.b):
        query, key = case.queries(b), case.keys(b)
        i, j = np.arange(len(query[1])), np.arange(len(key[1]))
        shift = len(j) - len(i)
        q = t["q"][query].transpose(1, 0, 2)  # [Hq, Sq, D]
        k = np.repeat(t["k"][key].transpose(1, 0, 2), group, axis=0)  # [Hq, Sk, D]
        v = np.repeat(t["v"][key].transpose(1, 0, 2), group, axis=0)  # [Hq, Sk, Dv]
        if "q_scale" in t:
            q = q * t["q_scale"][b][:, None, None]
            k = k * np.repeat(t["k_scale"][b], group)[:, None, None]
            v = v * np.repeat(t["v_scale"][b], group)[:, None, None]

        # What is attended, [Hq, Sq, Sk]; then forget keys and values that no query of a head sees.
        seen = np.broadcast_to(visible(case, i, j, shift), (case.hq, len(i), len(j))).copy()
        if case.bias != "none":
            size = t["bias"].shape
            where = np.ix_([b if size[0] > 1 else 0], heads if size[1] > 1 else [0] * case.hq,
                           i if size[2] > 1 else [0] * len(i), j if size[3] > 1 else [0] * len(j))
            where = tuple(np.asarray(x, dtype=np.int64) for x in where)
            bias = t["bias"][where][0]
            seen &= bias != 0 if case.bias == "boolean" else bias != -np.inf
        unused = ~seen.any(axis=1)[:, :, None]
        k, v = np.where(unused, 0, k), np.where(unused, 0, v)

        s = scale * (q @ k.transpose(0, 2, 1))
        tanh = np.zeros_like(s)
        if case.softcap > 0:
            tanh = np.tanh(s / case.softcap)
            s = case.softcap * tanh
        if case.bias == "additive":
            s = s + np.where(seen, bias, 0)
        distance = np.abs(i[:, None] + shift - j[None, :])
        if "alibi_slopes" in t:
            slopes = t["alibi_slopes"][b] if t["alibi_slopes"].ndim == 2 else t["alibi_slopes"]
            s = s - slopes[:, None, None] * distance
        s = np.where(seen, s, -np.inf)
        # The sink is a last column without a value.
        sink = t["sink"] if "sink" in t else np.full(case.hq, -np.inf)
        s = np.concatenate([s, np.broadcast_to(sink[:, None, None], s.shape[:2] + (1,))], axis=2)
        top = s.max(axis=2, keepdims=True)
        top = np.where(top == -np.inf, 0, top)
        lse = top + np.log(np.exp(s - top).sum(axis=2, keepdims=True))
        dead = lse == -np.inf
        p = np.where(dead, 0, np.exp(s - np.where(dead, 0, lse)))

        z = np.ones(s.shape[:2] + (len(j),))
        if case.dropout > 0:
            if case.dropout_stream == "fa2":
                keep = keep_fa2(case, b, len(i), len(j))
            else:
                keep = keep_curand(case, b, i, j)
            z = keep / (1 - case.dropout)
        pz = p[:, :, :-1] * z
        out["o"][query] = (pz @ v).transpose(1, 0, 2)
        out["lse"][case.lse_rows(b)] = lse[:, :, 0]
        if not case.backward:
            continue

        grad_o = t["grad_o"][query].transpose(1, 0, 2)
        grad_v = pz.transpose(0, 2, 1) @ grad_o
        grad_p = np.zeros_like(p)
        grad_p[:, :, :-1] = z * (grad_o @ v.transpose(0, 2, 1))
        grad_s = p * (grad_p - (p * grad_p).sum(axis=2, keepdims=True))
        if "grad_lse" in t:  # d LSE / d s = P, for the sink's column too
            grad_s += p * np.where(dead[:, :, 0], 0, t["grad_lse"][case.lse_rows(b)])[:, :, None]
        if "grad_sink" in out:
            out["grad_sink"] += grad_s[:, :, -1].sum(axis=1)
        grad_s = grad_s[:, :, :-1]
        if "grad_bias" in out:
            np.add.at(out["grad_bias"], where, grad_s[None])
        if "grad_alibi_slopes" in out:
            into = out["grad_alibi_slopes"]
            (into[b] if into.ndim == 2 else into)[:] -= (grad_s * distance).sum(axis=(1, 2))
        grad_dot = grad_s * (1 - tanh**2) * scale
        out["grad_q"][query] += (grad_dot @ k).transpose(1, 0, 2)
        grad_k = grad_dot.transpose(0, 2, 1) @ q
        # Heads of a group share a KV head, and sequences may share pages: add, never assign.
        for name, grad in (("grad_k", grad_k), ("grad_v", grad_v)):
            summed = grad.reshape((case.hkv, group) + grad.shape[1:]).sum(axis=1)
            np.add.at(out[name], key, summed.transpose(1, 0, 2))
    return out


def disagreement(got, want):
    """Empty, or how two arrays differ."""
    if got.shape != want.shape:
        return f"shape {got.shape}, oracle {want.shape}"
    finite = np.isfinite(want)
    if not np.array_equal(finite, np.isfinite(got)) or \
            not np.array_equal(got[~finite], want[~finite], equal_nan=True):
        return "NaN or infinities in other places"
    if not finite.any():
        return ""
    error = np.where(finite, np.abs(np.where(finite, got, 0) - np.where(finite, want, 0)), 0)
    allowed = RELATIVE * np.abs(want[finite]).max() + ABSOLUTE
    if error.max() <= allowed:
        return ""
    at = np.unravel_index(error.argmax(), error.shape)
    return f"{[int(x) for x in at]}: numpy {got[at]!r}, oracle {want[at]!r}, allowed {allowed:.2g}"


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    paths = sorted(pathlib.Path(sys.argv[1]).glob("*.json"), key=lambda path: int(path.stem))
    if len(paths) < 150:
        sys.exit(f"{sys.argv[1]} holds {len(paths)} Problems, want at least 150")
    failures = compared = 0
    for path in paths:
        case = Case(path)
        with np.errstate(all="ignore"):
            results = compute(case)
        for name, got in results.items():
            compared += 1
            problem = disagreement(got, case.tensors["want_" + name])
            if problem:
                failures += 1
                print(f"{path.name}, seed {case.seed}, {case.distribution}: {case.text}\n"
                      f"  {name} {problem}")
    print(f"{len(paths)} Problems, {compared} tensors compared, {failures} differ")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
