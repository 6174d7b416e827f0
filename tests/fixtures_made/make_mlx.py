"""Makes mlx.safetensors: matrices as MLX packs them, and their values as MLX reads them.

Run with mlx 0.32.4: python make_mlx.py
"""
from pathlib import Path

import mlx.core as mx
import numpy as np

random = np.random.default_rng(20261125)
tensors = {}


def keep(name, words, scales, biases, **settings):
    tensors[f"{name}.weight"] = words
    tensors[f"{name}.scales"] = scales
    tensors[f"{name}.biases"] = biases
    wide = [each.astype(mx.float32) for each in (scales, biases)]
    tensors[f"{name}.values"] = mx.dequantize(words, *wide, **settings)


def ternary(name, group_size, dtype, n=4, k=256):
    """MLX's own quantize gives ternary weights other scales: the maker of Ternary-Bonsai sets these."""
    codes = random.integers(0, 3, (n, k // 16, 16)).astype(np.uint32)
    words = (codes << (2 * np.arange(16, dtype=np.uint32))).sum(-1, dtype=np.uint32)
    scales = mx.array(random.uniform(0.01, 0.1, (n, k // group_size)).astype(np.float32)).astype(dtype)
    keep(name, mx.array(words), scales, -scales, group_size=group_size, bits=2)


def floats(name, bits, group_size, dtype, n=4, k=128):
    values = mx.array(random.normal(0, 0.05, (n, k)).astype(np.float32)).astype(dtype)
    settings = {"group_size": group_size, "bits": bits}
    keep(name, *mx.quantize(values, **settings), **settings)


ternary("half128", 128, mx.float16)
ternary("half64", 64, mx.float16)
ternary("bfloat128", 128, mx.bfloat16)
floats("four", 4, 64, mx.bfloat16)
floats("eight", 8, 32, mx.float16)
mx.save_safetensors(str(Path(__file__).with_name("mlx.safetensors")), tensors, {"format": "mlx"})
