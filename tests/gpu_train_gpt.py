#!/usr/bin/env python3
"""Trains the GPT of examples/train_gpt.py through Attune, forward and backward, and follows its loss.

Five trainings start from the same weights and see the same batches; only attention differs: in float64
by plain PyTorch (the reference), by Attune in float32 and bfloat16, and by plain PyTorch in those. All
else is float32. A gradient that is wrong by a little bends the curve; rounding alone bends it as much as
PyTorch's own rounding does. Passes when
  - float32: no step's loss is further from the reference's than 0.1%,
  - bfloat16: no mean over 20 steps is further from it than 2%,
  - both: the deviation is at most twice that of plain PyTorch in the same dtype,
  - both: the model has learned.

Skips (exit status 77) without PyTorch, or without the GPU that --device cuda asks for. On the CPU the
model is smaller, so that a minute or two is enough:

    python3 tests/gpu_train_gpt.py . build/src/libattune.so --device cpu

usage: gpu_train_gpt.py SOURCE_DIR LIBATTUNE.SO [--device cuda|cpu] [--steps N] [--seed N]
"""

import argparse
import ctypes
import math
import os
import pathlib
import sys
import time

SKIPPED = 77
WINDOW = 20  # steps that a smoothed loss is the mean of
WARM_UP = 20  # steps
RATE = 1e-3
MOST_STEP = {"f32": 1e-3}  # of a step's loss, relative to the reference's
MOST_SMOOTHED = {"f32": 1e-3, "bf16": 2e-2}
# Twice what PyTorch's rounding does, and what chance does to trainings as short as these.
MOST_RATIO, CHANCE = 2.0, {"f32": 3e-7, "bf16": 5e-5}
LEARNED = 0.7  # of the first smoothed loss: the last one is below


def text_of(source):
    """Real text, of which every checkout has enough: documentation and sources."""
    files = [source / "README.md"]
    for folder in ("docs", "include", "kernels", "src"):
        files += [path for path in (source / folder).rglob("*")
                  if path.suffix in {".md", ".h", ".hpp", ".cuh", ".cpp"}]
    return b"\n".join(path.read_bytes() for path in sorted(files))


def make_attune(torch, abi, library, dtype, device):
    """Attention by Attune: q, k, v [B, H, S, D] -> [B, H, S, D], differentiable."""
    plans = {}

    def run(kind, tensors):
        b, s, h, d = tensors["q"].shape
        problem = (f"{kind} dtype={dtype} b={b} hq={h} hkv={h} sq={s} sk={s} d={d} lse "
                   f"mask=causal-top-left device={device}")
        if problem not in plans:
            plans[problem] = abi.Plan(library, problem)
        arguments = abi.Arguments(struct_size=ctypes.sizeof(abi.Arguments))
        for name, tensor in tensors.items():
            setattr(arguments, name, abi.view(tensor, "f32" if name == "lse" else dtype))
        if device == "cuda":
            arguments.stream = torch.cuda.current_stream().cuda_stream
        plans[problem].run(arguments)

    class Attend(torch.autograd.Function):
        @staticmethod
        def forward(context, q, k, v):
            b, s, h, _ = q.shape
            o = torch.empty_like(q)
            lse = torch.empty((b, h, s), dtype=torch.float32, device=q.device)
            run("forward", {"q": q, "k": k, "v": v, "o": o, "lse": lse})
            context.save_for_backward(q, k, v, o, lse)
            return o

        @staticmethod
        def backward(context, grad_o):
            tensors = dict(zip(("q", "k", "v", "o", "lse"), context.saved_tensors))
            gradients = {f"grad_{name}": torch.empty_like(tensors[name]) for name in "qkv"}
            run("backward", {**tensors, "grad_o": grad_o.contiguous(), **gradients})
            return tuple(gradients.values())

    return lambda q, k, v: Attend.apply(
        *(x.transpose(1, 2).contiguous() for x in (q, k, v))).transpose(1, 2)


def plain(torch, q, k, v):
    """The textbook, in the dtype of its inputs."""
    length = q.shape[2]
    hidden = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    scores = (q @ k.transpose(2, 3)) / math.sqrt(q.shape[3])
    return scores.masked_fill(hidden, -math.inf).softmax(-1) @ v


def in_dtype(dtype, attend):
    return lambda q, k, v: attend(*(x.to(dtype) for x in (q, k, v))).to(q.dtype)


def losses(torch, train_gpt, config, text, attend, options):
    """The loss at each step of a training."""
    torch.manual_seed(options.seed)
    model = train_gpt.GPT(config).to(options.device)
    for block in model.blocks:
        block.attention.attend = attend
    generator = torch.Generator().manual_seed(options.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)
    offsets = torch.arange(config.context + 1, device=options.device)
    curve = []
    for step in range(options.steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / WARM_UP)
        starts = torch.randint(len(text) - config.context, (options.batch, 1), generator=generator)
        loss = train_gpt.loss_of(model, text[starts.to(options.device) + offsets].long())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        curve.append(loss.detach())
    return torch.stack(curve).double().cpu()


def smoothed(torch, curve):
    return curve.unfold(0, WINDOW, 1).mean(1)


def deviation(torch, curve, reference):
    """The largest of a step and of a mean over steps, and the root mean square of the means', all
    relative to the reference."""
    step = (curve / reference - 1).abs()
    mean = (smoothed(torch, curve) / smoothed(torch, reference) - 1).abs()
    return {"step": step.max().item(), "smoothed": mean.max().item(),
            "rms": mean.square().mean().sqrt().item()}


def judge(torch, dtype, curves):
    """What is wrong with Attune's curve."""
    reference = curves["float64"]
    ours, peers = (deviation(torch, curves[f"{who} {dtype}"], reference)
                   for who in ("attune", "plain"))
    for who, found in (("attune", ours), ("plain", peers)):
        print(f"{who + ' ' + dtype:12} from float64: a step at most {found['step']:.2e}, smoothed at "
              f"most {found['smoothed']:.2e}, rms {found['rms']:.2e}")
    if not math.isfinite(ours["rms"]):
        yield f"{dtype}: a loss is not finite"
    if ours["step"] > MOST_STEP.get(dtype, math.inf):
        yield f"{dtype}: a step's loss is {ours['step']:.2e} off"
    if ours["smoothed"] > MOST_SMOOTHED[dtype]:
        yield f"{dtype}: the smoothed loss is {ours['smoothed']:.2e} off"
    most = MOST_RATIO * peers["rms"] + CHANCE[dtype]
    if ours["rms"] > most:
        yield f"{dtype}: deviates by {ours['rms']:.2e}, more than {most:.2e} as of plain PyTorch"
    curve = smoothed(torch, curves[f"attune {dtype}"])
    if not curve[-1] < LEARNED * curve[0]:
        yield f"{dtype}: nothing learned: {curve[0]:.3f} nats a byte became {curve[-1]:.3f}"


def show(curves):
    steps = len(next(iter(curves.values())))
    print("  step  " + "  ".join(f"{name:>11}" for name in curves))
    for step in sorted({0, 1, *range(10, steps, max(1, steps // 10)), steps - 1}):
        print(f"{step:6}  " + "  ".join(f"{curve[step]:11.6f}" for curve in curves.values()))


def parse_arguments():
    parser = argparse.ArgumentParser(description="Train a small GPT through Attune; follow its loss.")
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("library", type=pathlib.Path)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args()


def main():
    options = parse_arguments()
    sys.path += [str(options.source / folder) for folder in ("bench", "examples")]
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the rest of the model repeats itself
    try:
        import torch
    except ImportError:
        print("skipped: there is no PyTorch")
        return SKIPPED
    if options.device == "cuda" and not torch.cuda.is_available():
        print("skipped: PyTorch sees no GPU")
        return SKIPPED
    import attune_abi as abi
    import train_gpt

    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cuda.matmul.allow_tf32 = False
    small = options.device == "cpu"
    options.batch = 8 if small else 16
    config = (train_gpt.Config(layers=2, heads=2, context=128, dropout=0.0) if small
              else train_gpt.Config(layers=4, heads=4, context=256, dropout=0.0))
    text = train_gpt.as_tensor(text_of(options.source), options.device)
    library = abi.Library(options.library)

    def textbook(q, k, v):
        return plain(torch, q, k, v)

    ways = {"float64": in_dtype(torch.float64, textbook)}
    for name, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        ways[f"attune {name}"] = in_dtype(
            dtype, make_attune(torch, abi, library, name, options.device))
        ways[f"plain {name}"] = in_dtype(dtype, textbook)
    curves = {}
    for name, attend in ways.items():
        began = time.monotonic()
        curves[name] = losses(torch, train_gpt, config, text, attend, options)
        print(f"{name}: {options.steps} steps in {time.monotonic() - began:.1f} s", flush=True)
    show(curves)
    wrong = [what for dtype in ("f32", "bf16") for what in judge(torch, dtype, curves)]
    for what in wrong:
        print(f"FAIL {what}")
    if not wrong:
        print("Attune trains as float64 does")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
