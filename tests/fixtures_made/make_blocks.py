"""Makes blocks.json: blocks of GGUF's types and what the gguf package reads in them.

Run with gguf 0.19.0: python make_blocks.py, then deno fmt blocks.json
"""
import base64
import json
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import quants

BLOCKS = 6
# Where a block's halves are: any bytes might be infinite or no number.
HALVES = {
    "Q4_0": [0], "Q5_0": [0], "Q8_0": [0], "Q4_K": [0, 2], "Q6_K": [208], "TQ1_0": [], "TQ2_0": [],
    "Q4_1": [0, 2], "Q5_1": [0, 2], "IQ4_NL": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q5_K": [0, 2],
}


def text(array):
    return base64.b64encode(array.tobytes()).decode()


def blocks_of(name, random):
    weights, size = quants.GGML_QUANT_SIZES[Type[name]]
    if name.startswith("TQ"):
        codes = random.integers(-1, 2, (BLOCKS, weights)).astype(np.float32)
        return quants.quantize(codes * (1 + np.arange(BLOCKS, dtype=np.float32)[:, None]) / 8, Type[name])
    blocks = random.integers(0, 256, (BLOCKS, size), dtype=np.uint8)
    for at in HALVES[name]:
        halves = random.uniform(-0.1, 0.1, (BLOCKS, 1)).astype(np.float16)
        blocks[:, at:at + 2] = halves.view(np.uint8)
    return blocks


def main():
    random = np.random.default_rng(20261125)
    made = {}
    for name in HALVES:
        blocks = blocks_of(name, random)
        values = quants.dequantize(blocks, Type[name]).astype("<f4")
        made[name] = {"blocks": text(blocks), "values": text(values)}
    (Path(__file__).parent / "blocks.json").write_text(json.dumps(made, indent=2) + "\n")


main()
