"""The rows that bench/gpu_peers.py times: their tensors, each way to compute them, and how wrong it is."""

import contextlib
import ctypes
import math
import statistics

from attune_abi import Arguments, Doubles, OracleResult, Plan, view

BACKENDS = {"mem-eff": "EFFICIENT_ATTENTION", "FA2": "FLASH_ATTENTION", "cuDNN": "CUDNN_ATTENTION"}
PEERS = (*BACKENDS, "FlexAttention")
SEED, OFFSET = 20, 4


def torch_dtype(torch, name):
    return {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16,
            "f8e4m3": torch.float8_e4m3fn}[name]


def problem_text(row, device, direction=None):
    direction = direction or row["direction"]
    text = (f"{direction} dtype={row['dtype']} b={row['b']} hq={row['h']} hkv={row['hkv']} "
            f"sq={row['s']} sk={row['s']} d={row['d']}")
    if row["mask"] == "causal":
        text += " mask=causal-top-left"
    if row["window"]:
        text += f" window={row['window'] - 1},0"
    if row["bias"]:
        text += f" bias={row['dtype']}" + ("" if row["bias"] == "bhqk" else f":{row['bias']}")
        text += " bias_aligned" if device == "cuda" else ""
        text += " bias_grad" if direction == "backward" and row["bias_grad"] else ""
    if row["dropout"]:
        text += f" dropout={row['dropout']}"
        text += f" dropout_stream={row['dropout_stream']}" if row["dropout_stream"] else ""
    if row["softcap"]:
        text += f" softcap={row['softcap']}"
    if row["alibi"]:
        text += " alibi=head"
    if row["page_size"]:
        text += f" page_size={row['page_size']} pages={row['b'] * pages_a_sequence(row)}"
    if row["direction"] == "backward" or row["lse"]:
        text += " lse"
    if direction == "backward" and row["deterministic"]:
        text += " deterministic"
    return f"{text} device={device}"


def pages_a_sequence(row):
    return -(-row["s"] // row["page_size"])


class Case:
    """The tensors of a row, [B, S, H, D] in memory. Backward starts from what Attune's forward pass
    saved; its peers from what their own did."""

    def __init__(self, torch, library, row, device="cuda"):
        self.torch, self.row, self.device = torch, row, device
        kind, dtype = torch_dtype(torch, row["dtype"]), row["dtype"]
        shape = (row["b"], row["s"], row["h"], row["d"])
        shapes = {"q": shape, "k": (*shape[:2], row["hkv"], row["d"])}
        if row["page_size"]:
            count = row["b"] * pages_a_sequence(row)
            shapes["k"] = (count, row["page_size"], row["hkv"], row["d"])
        shapes["v"] = shapes["k"]
        generator = torch.Generator(device).manual_seed(SEED)

        eighths = dtype == "f8e4m3"
        drawn = torch.float32 if eighths else kind  # PyTorch draws no float8

        def random(shape):
            return torch.randn(shape, device=device, dtype=drawn, generator=generator).to(kind)

        self.tensors = {name: random(shape) for name, shape in shapes.items()}
        if row["bias"]:
            b = row["b"] if row["bias"] == "bhqk" else 1
            self.tensors["bias"] = random((b, row["h"], row["s"], row["s"]))
        self.dtypes = {}  # of tensors whose dtype is not the row's
        if row["alibi"]:
            heads = torch.arange(1, row["h"] + 1, device=device, dtype=torch.float32)
            self.tensors["alibi_slopes"] = 2.0 ** (-8 * heads / row["h"])
            self.dtypes["alibi_slopes"] = "f32"
        if row["page_size"]:
            order = torch.randperm(count, device=device, generator=generator)
            self.tensors["page_table"] = order.reshape(row["b"], -1).to(torch.int32)
            self.dtypes["page_table"] = "i32"
        self.inputs = list(self.tensors)
        self.tensors["o"] = torch.empty(shape, device=device,
                                        dtype=torch.bfloat16 if eighths else kind)
        if eighths:
            self.dtypes["o"] = "bf16"
        self.results = ["o"]
        self.arguments = Arguments(struct_size=ctypes.sizeof(Arguments), dropout_seed=SEED,
                                   dropout_offset=OFFSET)
        if device == "cuda":
            self.arguments.stream = torch.cuda.current_stream().cuda_stream
        if row["direction"] == "backward" or row["lse"]:
            self.lse = torch.empty((row["b"], row["h"], row["s"]), device=device)
            self.arguments.lse = view(self.lse, "f32")
        if row["direction"] == "backward":
            self.point_to(dtype)
            forward = Plan(library, problem_text(row, device, "forward"))
            forward.run(self.arguments)
            self.results = [f"grad_{name}" for name in self.differentiated()]
            self.tensors["grad_o"] = random(shape)
            for name, result in zip(self.differentiated(), self.results):
                self.tensors[result] = torch.empty_like(self.tensors[name])
            self.inputs.append("grad_o")
        self.point_to(dtype)
        self.plan = Plan(library, problem_text(row, device))
        self.plan.prepare()
        self.workspace = torch.empty(max(1, self.plan.workspace_bytes), dtype=torch.uint8,
                                     device=device)

    def differentiated(self):
        return [name for name in self.inputs
                if name != "grad_o" and (name != "bias" or self.row["bias_grad"])]

    def point_to(self, dtype):
        for name, tensor in self.tensors.items():
            setattr(self.arguments, name, view(tensor, self.dtypes.get(name, dtype)))

    def attune(self):
        self.plan.run(self.arguments, self.workspace.data_ptr())

    def got(self):
        """What attune() has left, as [B, S, H, D] (a bias: as it is)."""
        return [self.tensors[name] for name in self.results]

    def peer(self, name):
        """A function that computes the row by one of PyTorch's backends, and its context. Results as
        PyTorch has them: [B, H, S, D]."""
        torch, row = self.torch, self.row
        if name == "FlexAttention":
            return self.flex(), contextlib.nullcontext
        for feature in ("window", "alibi", "softcap", "page_size"):
            if row[feature]:
                raise RuntimeError(f"scaled_dot_product_attention has no {feature}")
        attention = torch.nn.attention
        backend = getattr(attention.SDPBackend, BACKENDS[name])

        def context():
            return attention.sdpa_kernel([backend])

        backward = row["direction"] == "backward"
        asked = self.differentiated() if backward else []
        inputs = {name: self.tensors[name] for name in self.inputs if name != "grad_o"}
        if row["dtype"] == "f8e4m3":  # which no peer here takes: the same numbers
            inputs = {name: tensor.to(torch.bfloat16) for name, tensor in inputs.items()}
        leaves = {name: tensor.detach().requires_grad_(name in asked)
                  for name, tensor in inputs.items()}
        with torch.set_grad_enabled(backward):
            q, k, v = (leaves[name].transpose(1, 2) for name in "qkv")
            bias = leaves["bias"].expand(row["b"], -1, -1, -1) if row["bias"] else None

        def forward():
            return torch.nn.functional.scaled_dot_product_attention(
                q, k, v, attn_mask=bias, dropout_p=row["dropout"],
                is_causal=row["mask"] == "causal", enable_gqa=row["hkv"] != row["h"])

        if not backward:
            return lambda: [forward()], context
        with torch.enable_grad(), context():
            o = forward()
        grad = self.tensors["grad_o"].transpose(1, 2)
        wanted = [leaves[name] for name in asked]
        return lambda: torch.autograd.grad(o, wanted, grad, retain_graph=True), context

    def flex(self):
        """FlexAttention, compiled for ALiBi or a softcap."""
        torch, row = self.torch, self.row
        from torch.nn.attention import flex_attention

        slopes, cap = self.tensors.get("alibi_slopes"), row["softcap"]

        def changed(score, b, h, i, j):
            return cap * torch.tanh(score / cap) if cap else score - slopes[h] * (i - j).abs()

        mask = None
        if row["mask"] == "causal":
            mask = flex_attention.create_block_mask(lambda b, h, i, j: i >= j, None, None, row["s"], row["s"])
        torch.compiler.reset()  # rows are few, but more than the recompilations of one function that it allows
        compiled = torch.compile(flex_attention.flex_attention, dynamic=False)
        q, k, v = (self.tensors[name].transpose(1, 2) for name in "qkv")
        return lambda: [compiled(q, k, v, score_mod=changed, block_mask=mask)]


def comparable(row, results):
    """A peer's results in the layout of Case.got()."""
    return [x.transpose(1, 2) for x in results] if row["direction"] == "forward" else list(results)


def events(torch, function, calls):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(calls):
        function()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) * 1e-3 / calls


GRAPH_CALLS = 20


def graphed(torch, case, functions):
    """As `functions`, but GRAPH_CALLS calls each, replayed: without the host's share of a call."""
    stream, replays = torch.cuda.Stream(), {}
    for name, (function, context) in functions.items():
        with torch.cuda.stream(stream), context():
            case.arguments.stream = stream.cuda_stream
            function()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                for _ in range(GRAPH_CALLS):
                    function()
        replays[name] = (graph.replay, contextlib.nullcontext)
    case.arguments.stream = torch.cuda.current_stream().cuda_stream
    return replays


def take_turns(torch, functions, rounds, turn):
    """Median seconds a call of each. `functions`: {name: (function, context)}. Each turn lasts about
    `turn` seconds."""
    calls = {}
    for name, (function, context) in functions.items():
        with context():
            events(torch, function, 2)
            calls[name] = max(1, math.ceil(turn / events(torch, function, 3)))
    seconds = {name: [] for name in functions}
    for _ in range(rounds):
        for name, (function, context) in functions.items():
            with context():
                seconds[name].append(events(torch, function, calls[name]))
    return {name: statistics.median(times) for name, times in seconds.items()}


def first_line(error):
    return str(error).strip().splitlines()[0][:120]


def usable_peers(case, names=PEERS):
    """The backends that compute this row, and why the others don't."""
    usable, refused = {}, {}
    for name in names:
        if name == "FlexAttention" and not (case.row["alibi"] or case.row["softcap"]):
            continue  # it is measured with these alone
        try:
            function, context = case.peer(name)
            with context():
                function()
            case.torch.cuda.synchronize()
            usable[name] = (function, context)
        except RuntimeError as error:
            refused[name] = first_line(error)
    return usable, refused


def oracle(torch, library, case, rounding):
    """What float64 (rounding 0) or the textbook in the row's dtype (1) makes of it."""
    arguments = Arguments(struct_size=ctypes.sizeof(Arguments), dropout_seed=SEED,
                          dropout_offset=OFFSET)
    inputs = {name: case.tensors[name].detach().cpu() for name in case.inputs}
    for name, tensor in inputs.items():
        setattr(arguments, name, view(tensor, case.dtypes.get(name, case.row["dtype"])))
    results = [torch.empty(case.tensors[name].shape, dtype=torch.float64) for name in case.results]
    room = OracleResult(struct_size=ctypes.sizeof(OracleResult))
    for name, result in zip(case.results, results):
        setattr(room, name, Doubles(result.data_ptr(), result.numel()))
    library.check(library.c.attune_oracle_run(problem_text(case.row, "cpu").encode(), arguments,
                                              rounding, room))
    return results


def error_ratio(torch, got, exact, plain):
    error, yardstick = (got.double().cpu() - exact).abs(), (plain - exact).abs()
    floor = exact.abs().max().item() * torch.finfo(got.dtype).eps
    return max(error.max().item() / (2 * yardstick.max().item() + floor),
               error.square().mean().sqrt().item()
               / (1.5 * yardstick.square().mean().sqrt().item() + floor))


def judge(torch, library, row, known):
    """The error ratios of Attune and its peers on a small problem of the row's kind, the worst of its
    results. Peers draw dropout masks of their own, which no oracle knows."""
    small = {**row, "b": 1, "h": 2, "hkv": 1 if row["hkv"] < row["h"] else 2,
             "s": min(row["s"], 384), "window": min(row["window"], 100)}
    key = problem_text(small, "cuda")
    if key not in known:
        case = Case(torch, library, small)
        case.attune()
        torch.cuda.synchronize()
        exact, plain = (oracle(torch, library, case, rounding) for rounding in (0, 1))

        def worst(results):
            return max(error_ratio(torch, *three) for three in zip(results, exact, plain))

        known[key] = {"attune": worst(case.got())}
        if not row["dropout"]:
            for name, (function, context) in usable_peers(case, BACKENDS)[0].items():
                with context():
                    known[key][name] = worst(comparable(row, function()))
    return known[key]
