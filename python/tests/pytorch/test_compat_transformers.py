"""Three architectures of Hugging Face transformers with random weights: Attune beside their own
attention, forward, backward and generating."""

import pytest
import torch

transformers = pytest.importorskip(
    "transformers", reason="Hugging Face transformers is not installed"
)

from attune.compat.transformers import register  # noqa: E402

register()

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
TOKENS = torch.randint(1, 128, (2, 13), generator=torch.Generator().manual_seed(0))
PADDING = torch.ones_like(TOKENS)
PADDING[0, :5] = 0


def llama():
    """A decoder with grouped heads."""
    config = transformers.LlamaConfig(
        vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256, pad_token_id=0,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def gemma():
    """A decoder with a softcap and, in every other layer, a window."""
    config = transformers.Gemma2Config(
        vocab_size=128, hidden_size=64, intermediate_size=96, num_hidden_layers=2, head_dim=16,
        num_attention_heads=4, num_key_value_heads=2, sliding_window=8, pad_token_id=0,
        attn_logit_softcapping=2.0,
    )  # fmt: skip
    return transformers.Gemma2ForCausalLM(config)


def gpt_oss():
    """A decoder with sinks."""
    config = transformers.GptOssConfig(
        vocab_size=128, hidden_size=64, intermediate_size=64, num_hidden_layers=2, head_dim=16,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=1,
        sliding_window=8, pad_token_id=0,
    )  # fmt: skip
    return transformers.GptOssForCausalLM(config)


def t5():
    """An encoder and a decoder with relative biases, whose gradient is wanted."""
    config = transformers.T5Config(
        vocab_size=128, d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4,
        decoder_start_token_id=0, pad_token_id=0, dropout_rate=0.0,
    )  # fmt: skip
    return transformers.T5ForConditionalGeneration(config)


def vit():
    config = transformers.ViTConfig(
        hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96,
        image_size=32, patch_size=8,
    )  # fmt: skip
    return transformers.ViTForImageClassification(config)


def text(device):
    ids, mask = TOKENS.to(device), PADDING.to(device)
    # No loss for padding, nor for the first token, which padding predicts: rows that see nothing are
    # 0 here and in "sdpa", an average of everything in "eager".
    hidden = mask.cumsum(1) <= 1
    hidden &= (mask == 0).any(1, keepdim=True)
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(hidden, -100)}


def image(device):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(2, 3, 32, 32, generator=generator)
    return {"pixel_values": pixels.to(device), "labels": torch.tensor([0, 1], device=device)}


# What it is beside: Gemma's softcap and GPT-OSS's sinks are beyond "sdpa".
MODELS = {
    "llama": (llama, text, "sdpa"),
    "gemma": (gemma, text, "eager"),
    "gpt_oss": (gpt_oss, text, "eager"),
    "t5": (t5, text, "sdpa"),
    "vit": (vit, image, "sdpa"),
}


def run(model, implementation, inputs):
    """Logits where there is no padding, and all gradients."""
    model.set_attn_implementation(implementation)
    model.zero_grad()
    if "pixel_values" in inputs:
        kind = next(model.parameters()).dtype
        inputs = {**inputs, "pixel_values": inputs["pixel_values"].to(kind)}
    out = model(**inputs)
    out.loss.backward()
    logits = out.logits.detach().double()
    if "attention_mask" in inputs:
        logits = logits * inputs["attention_mask"][..., None]
    grads = {n: p.grad.double() for n, p in model.named_parameters() if p.grad is not None}
    return logits, grads


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MODELS)
def test_float32_equals_their_own(name, device):
    make, inputs, theirs = MODELS[name]
    model, inputs = make().to(device).eval(), inputs(device)
    want, want_grads = run(model, theirs, inputs)
    got, grads = run(model, "attune", inputs)
    torch.testing.assert_close(got, want, atol=2e-5, rtol=2e-5)
    assert grads.keys() == want_grads.keys()
    for parameter, grad in grads.items():
        scale = want_grads[parameter].abs().max()
        assert (grad - want_grads[parameter]).abs().max() <= 1e-4 * scale + 1e-7, parameter


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_errs_no_more_than_their_own(name, device):
    """Both are compared with the model in float32."""
    make, inputs, theirs = MODELS[name]
    model, inputs = make().to(device).eval(), inputs(device)
    truth, true_grads = run(model, theirs, inputs)
    model = model.to(torch.bfloat16)
    plain, plain_grads = run(model, theirs, inputs)
    got, grads = run(model, "attune", inputs)

    def rms(a, b):
        return (a - b).square().mean().sqrt()

    assert rms(got, truth) <= 1.5 * rms(plain, truth) + 2**-8 * rms(truth, 0)
    all_of = lambda g: torch.cat([g[n].flatten() for n in sorted(true_grads)])  # noqa: E731
    truth, plain, got = (all_of(g) for g in (true_grads, plain_grads, grads))
    assert rms(got, truth) <= 1.5 * rms(plain, truth) + 2**-8 * rms(truth, 0)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("cache", [None, "static"])
@pytest.mark.parametrize("name", ["llama", "gemma", "gpt_oss", "t5"])
def test_64_generated_tokens_are_the_same(name, cache, device):
    if name == "t5" and cache is not None:
        pytest.skip("one cache suffices for an encoder and a decoder")
    make, inputs, theirs = MODELS[name]
    model, inputs = make().to(device).eval(), inputs(device)
    del inputs["labels"]
    tokens = []
    for implementation in (theirs, "attune"):
        model.set_attn_implementation(implementation)
        tokens.append(
            model.generate(
                **inputs, max_new_tokens=64, min_new_tokens=64, do_sample=False,
                cache_implementation=cache, disable_compile=True,
            )
        )  # fmt: skip
    assert tokens[0].shape[1] >= 64
    assert torch.equal(*tokens)


def test_training_draws_dropout():
    model = llama().train()
    model.config.attention_dropout = 0.5
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    model.set_attn_implementation("attune")
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(model(**text("cpu")).loss.item())
    assert losses[0] == losses[1] != losses[2]


def test_a_compiled_model():
    model = llama().eval()
    model.set_attn_implementation("attune")
    inputs = text("cpu")
    with torch.no_grad():
        want = model(**inputs).logits
        got = torch.compile(model, backend="aot_eager")(**inputs).logits
    torch.testing.assert_close(got, want)
