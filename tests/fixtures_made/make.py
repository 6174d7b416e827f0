"""Makes models.json and the logits beside it: what public implementations say of small made-up models.

Run with transformers 5.24.0 and torch 2.15.0 on a CPU: python make.py
Weights are not kept. They follow from their tensors' names by a formula that tests/made_models.ts has
too, so that only configurations, shapes and logits are here.
"""
import json
import os
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"

import numpy as np
import torch
import transformers
from torch import nn
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.integrations.bitnet import AutoBitLinear

HERE = Path(__file__).parent
SEQUENCES = [[7], [3, 1, 4, 1, 5, 9, 2, 6, 200], [(37 * i * i + 11 * i + 5) % 256 for i in range(24)]]
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Logits of a position are exact where noise of 2^-22 on embeddings moves none by more than this.
EXACT = 1e-4
# Tokens that follow each sequence greedily.
GREEDY = 8


# ------------------------------------------------------------------ weights by formula

def fnv(text):
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def words(name, count):
    """32 bits for each of `count` places: the finaliser of MurmurHash3 over place and name."""
    h = np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B1) + np.uint32(fnv(name))
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    return h ^ h >> np.uint32(16)


def values(name, shape, kind):
    """float32 values that bfloat16 and float16 hold exactly."""
    count = int(np.prod(shape))
    top = (words(name, count) >> np.uint32(24)).astype(np.float64)
    if kind == "embedding":
        out = (top - 128) / 64
    elif kind == "master":
        out = (top - 127.5).round() / 1024
    elif kind == "norm":
        out = 1 + (top // 4 - 32) / 128
    elif kind == "offset":
        out = (top // 4 - 32) / 128
    else:
        out = ternary(name, shape, kind)
    return torch.from_numpy(out.astype(np.float32).reshape(shape))


def ternary(name, shape, kind):
    """Codes times magnitudes of whole matrices, blocks of rows, rows, or groups of features."""
    n, k = int(np.prod(shape[:-1])), shape[-1]
    codes = ((words(name, n * k) >> np.uint32(8)) % np.uint32(3)).astype(np.float64).reshape(n, k) - 1
    what, _, size = kind.partition(" ")
    rows = {"matrix": n, "blocks": n // int(size or 1), "row": 1, "group": 1}[what]
    features = int(size) if what == "group" else k
    counts = (-(-n // rows), -(-k // features))
    draws = (words(name + "#", counts[0] * counts[1]) >> np.uint32(25)).astype(np.float64)
    magnitudes = (1 + draws.reshape(counts) / 128) * 2.0 ** -4
    return (codes * magnitudes.repeat(rows, 0)[:n].repeat(features, 1)[:, :k]).reshape(-1)


# ------------------------------------------------------------------ models

def with_input_norms(model, eps):
    """Linears as Microsoft's embedding models have them: own norm, int8 inputs, ternarised masters."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if name in LINEARS:
                linear = AutoBitLinear(
                    child.in_features, child.out_features, bias=False, online_quant=True,
                    use_rms_norm=True, rms_norm_eps=eps,
                )
                setattr(module, name, linear)


def kind_of(name, linear, norm):
    last = name.split(".")[-2]
    if last in LINEARS:
        return linear
    if last in ("embed_tokens", "lm_head"):
        return "embedding"
    return "norm" if last == "rms_norm" else norm


def make(name, model, *, dtype, linear, norm="norm", own_norms=False, config=None, prefix="model."):
    model = model.float().eval()
    if own_norms:
        with_input_norms(model, 1e-6)
    state, tensors = {}, {}
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        stored = key.replace(".rms_norm.", ".norm.").removeprefix("model.")
        stored = stored if key.startswith("lm_head") else prefix + stored
        kind = kind_of(key, linear, norm)
        tensors[stored] = {"shape": list(tensor.shape), "kind": kind}
        state[key] = values(stored, tuple(tensor.shape), kind)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected and set(missing) <= {"lm_head.weight"}, (missing, unexpected)
    model.tie_weights()
    logits, exact = run(model)
    (HERE / f"{name}.f32").write_bytes(np.concatenate(logits).astype("<f4").tobytes())
    made = {
        "name": name,
        "dtype": dtype,
        "config": {**model.config.to_dict(), **(config or {})},
        "tensors": tensors,
        "exact": exact,
    }
    if not own_norms:
        return {**made, "greedy": [greedy(model, ids) for ids in SEQUENCES]}
    vectors, exact_vectors = run_vectors(model)
    (HERE / f"{name}.pooled.f32").write_bytes(vectors.astype("<f4").tobytes())
    return {**made, "exactVectors": exact_vectors}


@torch.no_grad()
def greedy(model, prompt):
    """Likeliest tokens one after the other, and how far the next likeliest was, of the largest logit."""
    ids, gaps = list(prompt), []
    for _ in range(GREEDY):
        row = model(torch.tensor([ids]), use_cache=False).logits[0, -1].numpy()
        first, second = np.sort(row)[-1], np.sort(row)[-2]
        gaps.append(float(np.float32((first - second) / np.abs(row).max())))
        ids.append(int(row.argmax()))
    return {"ids": ids[len(prompt):], "gaps": gaps}


def pooled(model, ids):
    """Vectors of length 1 of one sequence: of the mean, of the first token and of the last."""
    states = model.model(torch.tensor([ids]), use_cache=False).last_hidden_state[0].numpy()
    vectors = np.stack([states.mean(0), states[0], states[-1]]).astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@torch.no_grad()
def run_vectors(model):
    """(sequences, poolings, hidden_size), and whether noise leaves each vector where it is."""
    vectors = np.stack([pooled(model, ids) for ids in SEQUENCES])
    handle = add_noise(model)
    moved = np.max([
        np.abs(np.stack([pooled(model, ids) for ids in SEQUENCES]) - vectors).max(-1) for _ in range(4)
    ], 0)
    handle.remove()
    return vectors, (moved <= EXACT * np.abs(vectors).max(-1)).tolist()


def add_noise(model):
    torch.manual_seed(1)
    noise = lambda _, __, out: out * (1 + (torch.rand_like(out) - 0.5) * 2.0 ** -21)
    return model.get_input_embeddings().register_forward_hook(noise)


@torch.no_grad()
def run(model):
    logits = [model(torch.tensor([ids]), use_cache=False).logits[0].numpy() for ids in SEQUENCES]
    handle = add_noise(model)
    exact = []
    for ids, expected in zip(SEQUENCES, logits):
        moved = [model(torch.tensor([ids]), use_cache=False).logits[0].numpy() for _ in range(4)]
        most = np.max([np.abs(each - expected).max(-1) for each in moved], 0)
        exact.append([i for i, value in enumerate(most) if value <= EXACT * np.abs(expected).max()])
    handle.remove()
    return logits, exact


SMALL = dict(
    hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, vocab_size=256, max_position_embeddings=64, bos_token_id=1, eos_token_id=2,
    attn_implementation="eager",
)


def bonsai():
    config = Qwen3Config(**{
        **SMALL, "hidden_size": 256, "head_dim": 48, "tie_word_embeddings": False,
        "intermediate_size": 384,
        "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
            "original_max_position_embeddings": 16,
        },
    })
    return make("bonsai", Qwen3ForCausalLM(config), dtype="BF16", linear="group 128")


def trilm():
    config = LlamaConfig(**{**SMALL, "num_key_value_heads": 4, "tie_word_embeddings": False})
    return make("trilm", LlamaForCausalLM(config), dtype="F16", linear="blocks 2")


def bitcpm():
    """Granite's graph is MiniCPM's, under other names of the factors."""
    factors = [1 + i / 8 for i in range(16)]
    rope = {
        "rope_type": "longrope", "rope_theta": 10000.0, "short_factor": factors,
        "long_factor": [2 * f for f in factors], "original_max_position_embeddings": 32,
    }
    config = GraniteConfig(**{
        **SMALL, "tie_word_embeddings": False, "rope_parameters": rope, "embedding_multiplier": 12.0,
        "residual_multiplier": 1.4 / 2 ** 0.5, "logits_scaling": 128 / 16,
        "attention_multiplier": 32 ** -0.5,
    })
    of_minicpm = {
        "architectures": ["MiniCPMForCausalLM"], "model_type": "minicpm", "scale_emb": 12,
        "scale_depth": 1.4, "dim_model_base": 16,
    }
    return make("bitcpm", GraniteForCausalLM(config), dtype="BF16", linear="row", config=of_minicpm)


def embedding_qwen():
    config = Qwen3Config(**{**SMALL, "head_dim": 48, "tie_word_embeddings": True})
    return make(
        "embedding-qwen3", Qwen3ForCausalLM(config), dtype="BF16", linear="master", own_norms=True,
        config={"architectures": ["Qwen3Model"]}, prefix="",
    )


def embedding_gemma():
    config = Gemma3TextConfig(**{
        **SMALL, "num_hidden_layers": 3, "num_key_value_heads": 1, "head_dim": 48,
        "query_pre_attn_scalar": 30, "sliding_window": 5, "tie_word_embeddings": True,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
    })
    return make(
        "embedding-gemma3", Gemma3ForCausalLM(config), dtype="BF16", linear="master", norm="offset",
        own_norms=True, config={"architectures": ["Gemma3TextModel"]}, prefix="",
    )


def main():
    models = [bonsai(), trilm(), bitcpm(), embedding_qwen(), embedding_gemma()]
    made = {
        "versions": {"transformers": transformers.__version__, "torch": torch.__version__},
        "sequences": SEQUENCES,
        "models": models,
    }
    (HERE / "models.json").write_text(json.dumps(made, indent=1) + "\n")
    for model in models:
        print(model["name"], [len(places) for places in model["exact"]])


main()
