#!/usr/bin/env python3
"""Trains a small byte-level GPT and saves q, k and v of two of its layers over a real passage.

The result is a .safetensors file of float32 tensors layer<i>.q, layer<i>.k, layer<i>.v, each
[1, S, H, D], as they enter causal attention (after the rotary embedding; scale 1/sqrt(D)). Its
metadata holds the passage, the text's package and licence, the model and its losses.

    python3 examples/prepare_text.py --package postgresql-doc-15 --out text.txt
    python3 examples/train_gpt.py --text text.txt --out gpt_qkv.safetensors --log gpt_loss.json

Needs PyTorch 2.4 or later. A data-centre GPU takes about three minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import functools
import hashlib
import json
import math
import pathlib
import random
import struct
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn

import prepare_text

VOCABULARY = 256  # bytes
HELD_OUT_BLOCK = 16384  # bytes; long enough to hold whole passages, short enough to be many
LARGEST_FILE = 4_000_000  # bytes; the saved file belongs into a source repository


@dataclasses.dataclass(frozen=True)
class Config:
    """The shape of the model."""

    layers: int = 6
    heads: int = 5
    head_dim: int = 64
    context: int = 512
    dropout: float = 0.1
    rotary_base: float = 10000.0

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


# --------------------------------------------------------------------------- the model


def rotate(x: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """Rotary positions: x is [B, H, S, D], cosine and sine are [S, D/2]."""
    low, high = x.float().chunk(2, dim=-1)
    turned = torch.cat((low * cosine - high * sine, high * cosine + low * sine), dim=-1)
    return turned.to(x.dtype)


class Attention(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.heads = config.heads
        self.project_in = nn.Linear(config.width, 3 * config.width, bias=False)
        self.project_out = nn.Linear(config.width, config.width, bias=False)
        # q, k, v [B, H, S, D] -> [B, H, S, D]; tests put other attentions in its place.
        self.attend = functools.partial(F.scaled_dot_product_attention, is_causal=True)
        self.recording = False
        self.recorded: tuple[torch.Tensor, ...] = ()

    def forward(self, x, cosine, sine):
        batch, length, width = x.shape
        shape = (batch, length, 3, self.heads, width // self.heads)
        q, k, v = self.project_in(x).view(shape).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, cosine, sine), rotate(k, cosine, sine)
        if self.recording:
            self.recorded = (q, k, v)
        y = self.attend(q, k, v)
        return self.project_out(y.transpose(1, 2).reshape(batch, length, width))


class Block(nn.Module):
    def __init__(self, config: Config) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(config.width, bias=False)
        self.attention = Attention(config)
        self.norm_mlp = nn.LayerNorm(config.width, bias=False)
        self.widen = nn.Linear(config.width, 4 * config.width, bias=False)
        self.narrow = nn.Linear(4 * config.width, config.width, bias=False)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, cosine, sine):
        x = x + self.dropout(self.attention(self.norm_attention(x), cosine, sine))
        return x + self.dropout(self.narrow(F.gelu(self.widen(self.norm_mlp(x)))))


class GPT(nn.Module):
    """Pre-norm decoder over bytes; the embedding is also the output matrix."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        half = config.head_dim // 2
        frequency = config.rotary_base ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.outer(torch.arange(config.context, dtype=torch.float64), frequency)
        self.register_buffer("cosine", angle.cos().float(), persistent=False)
        self.register_buffer("sine", angle.sin().float(), persistent=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                # The residual stream sums 2 * layers outputs; keep its variance flat at the start.
                ends_branch = name.endswith(("project_out.weight", "narrow.weight"))
                shrink = math.sqrt(2 * config.layers) if ends_branch else 1.0
                nn.init.normal_(parameter, std=0.02 / shrink)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens: [B, S] int64 -> logits [B, S, 256]."""
        length = tokens.shape[1]
        x = self.dropout(self.embedding(tokens))
        for block in self.blocks:
            x = block(x, self.cosine[:length], self.sine[:length])
        return F.linear(self.norm(x), self.embedding.weight)


# --------------------------------------------------------------------------- the text


def load_texts(arguments) -> tuple[list[bytes], list[dict[str, str]]]:
    """The texts and where each came from; raises ValueError where the licence is not known."""
    texts, sources = [], []
    for path in arguments.text:
        sidecar = path.with_name(path.name + ".json")
        source = json.loads(sidecar.read_text("utf-8")) if sidecar.is_file() else {}
        source.setdefault("package", path.name)
        texts.append(path.read_bytes())
        sources.append(source)
    for folder in arguments.debian_text:
        texts.append(prepare_text.text_of_folder(folder).encode("utf-8"))
        sources.append({"package": folder.name, **prepare_text.licence_of_folder(folder)})
    for text, source in zip(texts, sources):
        if arguments.licence:
            source["licence"] = arguments.licence
        if not source.get("licence"):
            raise ValueError(f"the licence of {source['package']} is not known: give --licence, "
                             "or make the text with prepare_text.py, which notes it")
        source["sha256"] = hashlib.sha256(text).hexdigest()
    return texts, sources


def split(text: bytes, seed: int) -> tuple[bytes, list[bytes]]:
    """Training bytes, and about one in twenty blocks held out from them (at least one)."""
    blocks = [text[i:i + HELD_OUT_BLOCK] for i in range(0, len(text), HELD_OUT_BLOCK)]
    full = range(len(text) // HELD_OUT_BLOCK)
    if len(full) < 2:
        raise ValueError(f"{len(text)} bytes of text; training needs at least "
                         f"{2 * HELD_OUT_BLOCK}")
    chosen = set(random.Random(seed).sample(full, max(1, len(full) // 20)))
    return (b"".join(block for i, block in enumerate(blocks) if i not in chosen),
            [blocks[i] for i in sorted(chosen)])


def choose_passage(blocks: list[bytes], length: int) -> bytes:
    """The most prose-like `length` bytes of the held-out blocks: ASCII, from the start of a
    paragraph, with the largest share of small letters."""
    best, best_share = b"", -1.0
    for block in blocks:
        start = block.find(b"\n\n") + 2
        while 2 <= start <= len(block) - length:
            window = block[start:start + length]
            if window.isascii() and window[:1].isupper():
                share = sum(97 <= byte <= 122 for byte in window) / length
                if share > best_share:
                    best, best_share = window, share
            start = block.find(b"\n\n", start) + 2
    return best or blocks[0][:length].decode("ascii", "replace").encode("ascii", "replace")


def as_tensor(data: bytes, device: torch.device) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).to(device)


# --------------------------------------------------------------------------- training


def loss_of(model, tokens: torch.Tensor) -> torch.Tensor:
    """Mean nats a byte of predicting tokens[:, 1:]; tokens is [B, S + 1]."""
    logits = model(tokens[:, :-1])
    return F.cross_entropy(logits.float().reshape(-1, VOCABULARY), tokens[:, 1:].reshape(-1))


@torch.no_grad()
def held_out_loss(model, windows: torch.Tensor, batch: int, autocast) -> float:
    """Mean loss over `windows` [N, S + 1], without dropout."""
    model.eval()
    total = 0.0
    for part in windows.split(batch):
        with autocast():
            total += loss_of(model, part.long()).item() * len(part)
    model.train()
    return total / len(windows)


def train(model, config: Config, training: torch.Tensor, windows: torch.Tensor, arguments):
    """Trains in place; returns the loss curve, one entry every `--every` steps and one last."""
    device = training.device
    generator = torch.Generator(device=device).manual_seed(arguments.seed)
    bf16 = device.type == "cuda"

    def autocast():
        return torch.autocast("cuda", torch.bfloat16) if bf16 else contextlib.nullcontext()

    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=arguments.lr, betas=(0.9, 0.95), fused=device.type == "cuda")
    network = torch.compile(model) if arguments.compile else model
    offsets = torch.arange(config.context + 1, device=device)
    # The few windows looked at on the way are spread evenly over all that are held out.
    sample = windows[torch.linspace(0, len(windows) - 1, min(len(windows), arguments.batch),
                                    device=device).long()]
    curve, recent = [], torch.zeros((), device=device)
    counted, began, elapsed, step = 0, time.monotonic(), 0.0, 0
    while True:
        # Time counts too, so that a budget that runs out still ends on a cooled learning rate.
        progress = min(1.0, max(step / arguments.steps, elapsed / arguments.seconds))
        rate = arguments.lr * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * progress)))
        rate *= min(1.0, (step + 1) / min(100, arguments.steps))
        if progress >= 1.0 or (step % arguments.every == 0 and step):
            trained = recent.item() / max(counted, 1)
            tested = held_out_loss(network, windows if progress >= 1.0 else sample,
                                   arguments.batch, autocast)
            elapsed = time.monotonic() - began
            curve.append({"step": step, "train": round(trained, 5), "held_out": round(tested, 5),
                          "lr": rate, "seconds": round(elapsed, 2)})
            print(f"step {step:6d}  train {trained:.4f}  held out {tested:.4f} nats/byte  "
                  f"lr {rate:.2e}  {elapsed:6.1f} s", flush=True)
            recent.zero_()
            counted = 0
        if progress >= 1.0:
            return curve
        for group in optimizer.param_groups:
            group["lr"] = rate
        starts = torch.randint(len(training) - config.context, (arguments.batch, 1),
                               device=device, generator=generator)
        with autocast():
            loss = loss_of(network, training[starts + offsets].long())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        recent += loss.detach()
        counted += 1
        step += 1
        if step % 10 == 0 or device.type == "cpu":
            if device.type == "cuda":
                torch.cuda.synchronize()  # else the clock runs behind the queue
            elapsed = time.monotonic() - began


# --------------------------------------------------------------------------- what is saved


@torch.no_grad()
def record(model: GPT, passage: bytes, layers: list[int], device) -> tuple[dict, float]:
    """q, k, v of `layers` over the passage in float32, [1, S, H, D], and the passage's loss."""
    model.eval()
    for layer in layers:
        model.blocks[layer].attention.recording = True
    tokens = as_tensor(passage, device).long()[None]
    logits = model(tokens)
    loss = F.cross_entropy(logits[0, :-1].float(), tokens[0, 1:]).item()
    tensors = {}
    for layer in layers:
        for name, tensor in zip("qkv", model.blocks[layer].attention.recorded):
            tensors[f"layer{layer}.{name}"] = tensor.float().transpose(1, 2).contiguous().cpu()
    return tensors, loss


def describe_heads(tensors: dict, layer: int) -> list[dict[str, float]]:
    """How each head attends: mean weight on the byte itself and on the one before it, and the
    entropy of its rows as a share of an even spread's."""
    q, k = (tensors[f"layer{layer}.{name}"][0].transpose(0, 1).double() for name in "qk")
    length = q.shape[1]
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[2])
    weights = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -math.inf).softmax(-1)
    entropy = torch.special.entr(weights).sum(-1)[:, 1:]
    even = torch.arange(2, length + 1).double().log()
    return [{"self": head.diagonal().mean().item(),
             "previous": head.diagonal(-1).mean().item(),
             "entropy_share": (spread / even).mean().item()}
            for head, spread in zip(weights, entropy)]


def save_safetensors(path: pathlib.Path, tensors: dict, metadata: dict[str, str]) -> None:
    """Writes contiguous float32 CPU tensors, with the safetensors package where there is one."""
    try:
        from safetensors.torch import save_file
        save_file(tensors, str(path), metadata=metadata)
        return
    except ImportError:
        pass
    header, end = {"__metadata__": metadata}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode("utf-8")
    encoded += b" " * (-len(encoded) % 8)  # the data starts on a multiple of 8 bytes
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for tensor in tensors.values():
            file.write(ctypes.string_at(tensor.data_ptr(), tensor.nbytes))


def parse_arguments(config: Config) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Train a small byte-level GPT; save q, k, v of two layers over a passage.")
    add = parser.add_argument
    add("--text", type=pathlib.Path, action="append", default=[], metavar="FILE",
        help="a text to train on (repeatable); FILE.json beside it names its licence")
    add("--debian-text", type=pathlib.Path, action="append", default=[], metavar="DIR",
        help="an unpacked documentation package to train on (repeatable)")
    add("--licence", help="the licence of the texts, where they do not come with one")
    add("--out", type=pathlib.Path, required=True, help="the .safetensors file to write")
    add("--log", type=pathlib.Path, help="a JSON file for the loss curve")
    add("--steps", type=int, default=4000, help="training steps (default %(default)s)")
    add("--seconds", type=float, default=240.0,
        help="stop, cooled down, after so many seconds (default %(default)s)")
    add("--batch", type=int, default=64, help="sequences a step (default %(default)s)")
    add("--lr", type=float, default=1.5e-3, help="peak learning rate (default %(default)s)")
    add("--every", type=int, default=100, help="steps between reports (default %(default)s)")
    add("--seed", type=int, default=1, help="default %(default)s")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default %(default)s)")
    add("--compile", action="store_true", help="use torch.compile")
    add("--passage-bytes", type=int, help="length S of the passage (default: the context)")
    add("--save-layers", type=int, nargs="+", help="layers to save (default: first and last)")
    for field in dataclasses.fields(Config):
        add("--" + field.name.replace("_", "-"), type=type(field.default),
            default=getattr(config, field.name), help="model (default %(default)s)")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments(Config())
    config = Config(**{f.name: getattr(arguments, f.name) for f in dataclasses.fields(Config)})
    length = arguments.passage_bytes or config.context
    layers = arguments.save_layers or sorted({0, config.layers - 1})
    bytes_saved = len(layers) * 3 * length * config.width * 4
    problems = [
        (not arguments.text and not arguments.debian_text, "give --text or --debian-text"),
        (min(config.layers, config.heads, config.head_dim) < 1,
         "--layers, --heads and --head-dim must be positive"),
        (config.head_dim % 2, f"--head-dim {config.head_dim} is odd; rotary turns pairs"),
        (not 2 <= length <= config.context,
         f"--passage-bytes {length} is not in 2..{config.context}, the context"),
        (not all(0 <= layer < config.layers for layer in layers),
         f"--save-layers {layers}: the model has layers 0..{config.layers - 1}"),
        (min(arguments.steps, arguments.seconds, arguments.batch, arguments.every) <= 0,
         "--steps, --seconds, --batch and --every must be positive"),
        (bytes_saved > LARGEST_FILE - 20_000,
         f"{len(layers)} layers of q, k, v take {bytes_saved:,} bytes, which leaves no room in "
         f"{LARGEST_FILE:,}: shorten --passage-bytes"),
    ]
    for wrong, message in problems:
        if wrong:
            print(f"train_gpt: {message}", file=sys.stderr)
            return 2
    for path in filter(None, (arguments.out, arguments.log)):
        path.parent.mkdir(parents=True, exist_ok=True)  # not found out after the training
    name = arguments.device
    device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto"
                          else name)
    torch.manual_seed(arguments.seed)
    try:
        texts, sources = load_texts(arguments)
        training, held_out = split(b"".join(texts), arguments.seed)
    except (OSError, ValueError) as error:
        print(f"train_gpt: {error}", file=sys.stderr)
        return 1
    passage = choose_passage(held_out, length)
    windows = torch.stack([window for block in held_out for window in
                           as_tensor(block, device).unfold(0, config.context + 1, config.context)])
    model = GPT(config).to(device)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{parameters:,} parameters, {len(training):,} bytes to learn from, "
          f"{len(windows)} windows held out, on {device}", flush=True)
    curve = train(model, config, as_tensor(training, device), windows, arguments)

    tensors, passage_loss = record(model, passage, layers, device)
    heads = {f"layer{layer}": describe_heads(tensors, layer) for layer in layers}
    final = {**curve[-1], "passage": passage_loss}
    model_text = {**dataclasses.asdict(config), "parameters": parameters, "vocabulary": "bytes",
                  "embedding": "tied", "norm": "pre-layernorm", "positions": "rotary"}
    save_safetensors(arguments.out, tensors, {
        "description": "q, k, v of a byte-level GPT as they enter causal attention, [1, S, H, D]",
        "passage": passage.decode("utf-8"),
        "layers": json.dumps(layers),
        "mask": "causal",
        "scale": f"1/sqrt({config.head_dim})",
        "model": json.dumps(model_text),
        "losses": json.dumps(final),
        "text_sources": json.dumps(sources),
        "licence": "; ".join(f"{s['package']} {s.get('version', '')}: {s['licence']}"
                             for s in sources),
        "seed": str(arguments.seed),
    })
    if arguments.log:
        log = {"model": model_text, "steps": arguments.steps, "seconds": arguments.seconds,
               "batch": arguments.batch, "lr": arguments.lr, "seed": arguments.seed,
               "torch": torch.__version__,
               "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
               "text_sources": [{k: v for k, v in s.items() if k != "licence_text"}
                                for s in sources],
               "curve": curve, "final": final, "heads": heads}
        arguments.log.write_text(json.dumps(log, indent=1) + "\n", "utf-8")
    for layer, described in heads.items():
        for number, head in enumerate(described):
            print(f"{layer} head {number}: self {head['self']:.3f}  previous "
                  f"{head['previous']:.3f}  entropy {head['entropy_share']:.3f} of even")
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes; passage "
          f"{passage_loss:.4f} nats/byte:\n{passage.decode('utf-8')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
