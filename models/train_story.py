"""Train, measure and export the embedded story model: a small BitNet b1.58 in 2B4T's packed format.

    pip install torch numpy tokenizers safetensors
    python train_story.py --corpus CORPUS --out models/story --work WORK --minutes 87

CORPUS holds `tinystories_train.txt` (stories separated by <|endoftext|>) and any number of other
`.txt` files (books). WORK receives the log and a checkpoint every few minutes; the same command
with `--resume` goes on from there, and with `--export-only` it only writes the model. `--check`
compares the exported folder with Hugging Face transformers (an extra package), which is the
definition of the format.

The network is the one of BitNet b1.58 2B4T (arXiv 2504.12285): every projection has ternary weights
(one absmean scale a matrix) and int8 activations (one absmax scale a token), both trained through
with the straight-through estimator; an extra RMSNorm sits before the output and the down
projection; the feed-forward gate is a squared ReLU; embedding and head are one matrix and not
quantised. The forward below multiplies integers and sums them exactly, so training and the exported
file agree to float32 rounding.
"""

import argparse
import json
import math
import os
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

STORIES_FILE = "tinystories_train.txt"
STORY_SEPARATOR = "<|endoftext|>"
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
# Llama 3's split: contractions, words with their leading space, numbers of up to three digits, ...
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Every twentieth story is held out: the file joins several excerpts, so its end is not typical.
VALID_EVERY, VALID_OFFSET = 20, 10
IGNORE = -100
PROMPT = "Once upon a time"


@dataclass(frozen=True)
class Config:
    """Hugging Face's names for the shape of the network."""

    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 768
    num_hidden_layers: int = 8
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 512
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


# ---------------------------------------------------------------------------------------------
# Network


class TernaryProduct(torch.autograd.Function):
    """y = activation scales * (int8 x) (ternary W)^T * weight scale, for matrices that share x.

    Several matrices are stacked into one product; each keeps its own scale. Backward is the
    straight-through estimator: the gradient of the quantised product, with both roundings taken
    as identity. The forward product is exact. The one towards x is int8 too, with a scale a token:
    its weights are integers anyway, and four times faster is worth an angle of a hundredth to the
    float32 gradient (measured cosine 0.9999). The one towards W stays float32.
    """

    @staticmethod
    def forward(ctx, x, *weights):
        x_scale = 127 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
        x_q = (x * x_scale).round().clamp(-128, 127).to(torch.int8)
        codes, scales = zip(*(ternarize(w) for w in weights))
        codes = torch.cat(codes).to(torch.int8)
        scales = torch.cat([s.expand(w.shape[0]) for s, w in zip(scales, weights)])
        ctx.save_for_backward(x_q, x_scale, codes, scales)
        ctx.rows = [w.shape[0] for w in weights]
        return torch._int_mm(x_q, codes.T).float() / x_scale * scales

    @staticmethod
    def backward(ctx, grad):
        x_q, x_scale, codes, scales = ctx.saved_tensors
        g = grad * scales
        g_scale = 127 / g.abs().amax(-1, keepdim=True).clamp(min=1e-30)
        g_q = (g * g_scale).round().to(torch.int8)
        grad_x = torch._int_mm(g_q, codes).float() / g_scale
        grad_w = (grad / x_scale).T @ x_q.float()
        return grad_x, *grad_w.split(ctx.rows)


def ternarize(weight):
    """Codes -1, 0, +1 and the scale, mean |W| as stored in the file (bfloat16)."""
    mean = weight.abs().mean().clamp(min=1e-5)
    codes = (weight / mean).round().clamp(-1, 1)
    return codes, mean.bfloat16().float()


class RmsNorm(nn.Module):
    def __init__(self, size, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class Projection(nn.Module):
    """Holds a master weight under its checkpoint name; `TernaryProduct` does the work."""

    def __init__(self, n, k):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n, k) * 0.02)


class Attention(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        kv_size = c.num_key_value_heads * c.head_dim
        self.q_proj = Projection(c.hidden_size, c.hidden_size)
        self.k_proj = Projection(kv_size, c.hidden_size)
        self.v_proj = Projection(kv_size, c.hidden_size)
        self.o_proj = Projection(c.hidden_size, c.hidden_size)
        self.attn_sub_norm = RmsNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, x, rope, mask, rows):
        c = self.c
        kv_size = c.num_key_value_heads * c.head_dim
        qkv = TernaryProduct.apply(x, self.q_proj.weight, self.k_proj.weight, self.v_proj.weight)
        q, k, v = (
            t.view(rows, -1, t.shape[-1] // c.head_dim, c.head_dim).transpose(1, 2)
            for t in qkv.split([c.hidden_size, kv_size, kv_size], dim=-1)
        )
        q, k = rotate(q, rope), rotate(k, rope)
        group = c.num_attention_heads // c.num_key_value_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        o = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        o = self.attn_sub_norm(o.transpose(1, 2).reshape(x.shape))
        return TernaryProduct.apply(o, self.o_proj.weight)


def rotate(x, rope):
    """Rotate pairs (i, i + head_dim / 2), the half-split form of RoPE."""
    cos, sin = rope
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class FeedForward(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.gate_proj = Projection(c.intermediate_size, c.hidden_size)
        self.up_proj = Projection(c.intermediate_size, c.hidden_size)
        self.down_proj = Projection(c.hidden_size, c.intermediate_size)
        self.ffn_sub_norm = RmsNorm(c.intermediate_size, c.rms_norm_eps)

    def forward(self, x):
        gate, up = TernaryProduct.apply(x, self.gate_proj.weight, self.up_proj.weight).chunk(2, -1)
        f = self.ffn_sub_norm(F.relu(gate).pow(2) * up)
        return TernaryProduct.apply(f, self.down_proj.weight)


class Layer(nn.Module):
    def __init__(self, c: Config):
        super().__init__()
        self.input_layernorm = RmsNorm(c.hidden_size, c.rms_norm_eps)
        self.self_attn = Attention(c)
        self.post_attention_layernorm = RmsNorm(c.hidden_size, c.rms_norm_eps)
        self.mlp = FeedForward(c)

    def forward(self, h, rope, mask, rows):
        h = h + self.self_attn(self.input_layernorm(h), rope, mask, rows)
        return h + self.mlp(self.post_attention_layernorm(h))


class StoryModel(nn.Module):
    """Parameters carry the names of the checkpoint, less the leading `model.`."""

    def __init__(self, c: Config):
        super().__init__()
        self.c = c
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        nn.init.normal_(self.embed_tokens.weight, std=0.05)
        self.layers = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.norm = RmsNorm(c.hidden_size, c.rms_norm_eps)

    def forward(self, ids, rope, mask, drop):
        """ids (rows, length); mask (rows, 1, length, length), added to scores. Logits, flat.

        `drop` multiplies the embedding (rows * length, hidden_size), or is None: dropout whose
        noise is made outside, as random numbers are slow inside a compiled CPU graph.
        """
        rows = ids.shape[0]
        h = self.embed_tokens(ids.flatten())
        if drop is not None:
            h = h * drop
        for layer in self.layers:
            h = layer(h, rope, mask, rows)
        return self.norm(h) @ self.embed_tokens.weight.T


def rope_table(c: Config, length):
    frequency = c.rope_theta ** (-torch.arange(0, c.head_dim, 2).double() / c.head_dim)
    angle = torch.outer(torch.arange(length).double(), frequency)
    return angle.cos().float(), angle.sin().float()


# ---------------------------------------------------------------------------------------------
# Data


def read_corpus(folder: Path):
    """Training stories, held-out stories, books."""
    text = (folder / STORIES_FILE).read_text()
    stories = [s.strip() for s in text.split(STORY_SEPARATOR)]
    stories = [s for s in stories if s]
    train = [s for i, s in enumerate(stories) if i % VALID_EVERY != VALID_OFFSET]
    valid = [s for i, s in enumerate(stories) if i % VALID_EVERY == VALID_OFFSET]
    books = [p.read_text().strip() for p in sorted(folder.glob("*.txt")) if p.name != STORIES_FILE]
    return train, valid, books


def train_tokenizer(texts, vocab_size):
    """Byte-level BPE in the layout of Llama 3: special tokens last, BOS added by the template."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size - 2,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.add_special_tokens([BOS, EOS])
    assert tokenizer.get_vocab_size() == vocab_size
    bos = tokenizer.token_to_id(BOS)
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(
            single=f"{BOS} $A",
            pair=f"{BOS} $A {BOS}:1 $B:1",
            special_tokens=[(BOS, bos)],
        ),
    ])
    return tokenizer


def tokenizer_for(args, stories, books, vocab_size):
    """The tokenizer of this run: trained once, as a checkpoint is worthless with another one."""
    from tokenizers import Tokenizer

    path = args.work / "tokenizer.json"
    if path.exists() and (args.resume or args.export_only):
        return Tokenizer.from_file(str(path))
    # Stories count three times: they are what the model is to write.
    tokenizer = train_tokenizer(stories * 3 + books, vocab_size)
    tokenizer.save(str(path))
    return tokenizer


def encode(tokenizer, texts):
    """Each document as BOS + text + EOS."""
    eos = tokenizer.token_to_id(EOS)
    return [e.ids + [eos] for e in tokenizer.encode_batch(texts)]


def pieces(documents, length):
    """Documents cut so that each piece fits a row; only the first piece of one begins with BOS.

    A row of `length` inputs has length + 1 tokens; a cut token is the last target of one piece and
    the first input of the next.
    """
    for ids in documents:
        for start in range(0, max(len(ids) - 1, 1), length):
            yield ids[start : start + length + 1]


def pack(parts, length):
    """Rows of whole pieces, best fit over a window; what is left of a row is padding.

    Returns inputs, targets (IGNORE where there is none) and the segment of each input: pieces in
    one row do not see each other.
    """
    window, rows, source = [], [], iter(parts)
    for part in source:
        window.append(part)
        if len(window) >= 64:
            break
    while window:
        row, room = [], length
        while True:
            fitting = [p for p in window if len(p) - 1 <= room]
            if not fitting:
                break
            # The first piece is the oldest, so that none waits forever.
            part = window[0] if not row else max(fitting, key=len)
            window.remove(part)
            row.append(part)
            room -= len(part) - 1
            following = next(source, None)
            if following is not None:
                window.append(following)
        rows.append(row)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    targets = torch.full((len(rows), length), IGNORE)
    segments = torch.full((len(rows), length), -1)
    for r, row in enumerate(rows):
        at = 0
        for s, part in enumerate(row):
            end = at + len(part) - 1
            ids[r, at:end] = torch.tensor(part[:-1])
            targets[r, at:end] = torch.tensor(part[1:])
            segments[r, at:end] = s
            at = end
    return ids, targets, segments


def attention_mask(segments):
    """0 where a position may look (its own segment, not ahead), minus infinity elsewhere."""
    length = segments.shape[1]
    same = segments[:, None, :, None] == segments[:, None, None, :]
    seen = same & torch.ones(length, length, dtype=torch.bool).tril()
    return torch.zeros(seen.shape).masked_fill(~seen, -math.inf)


class Batches:
    """Endless batches: shuffled stories, and a share of rows from books that the caller sets."""

    def __init__(self, stories, books, length, rows, rng):
        self.sources = {"stories": stories, "books": books}
        self.length, self.rows, self.rng = length, rows, rng
        self.queue = {"stories": [], "books": []}

    def row(self, source):
        queue = self.queue[source]
        if not queue:
            parts = list(pieces(self.sources[source], self.length))
            self.rng.shuffle(parts)
            ids, targets, segments = pack(parts, self.length)
            order = list(range(len(ids)))
            self.rng.shuffle(order)
            queue.extend((ids[i], targets[i], segments[i]) for i in order)
        return queue.pop()

    def next(self, book_share):
        picks = ["books" if self.rng.random() < book_share else "stories" for _ in range(self.rows)]
        return tuple(torch.stack(t) for t in zip(*(self.row(p) for p in picks)))


# ---------------------------------------------------------------------------------------------
# Optimiser


def orthogonalize(g):
    """The nearest (semi-)orthogonal matrix to g, roughly: five Newton-Schulz steps.

    Source of the idea and the coefficients: Muon (Jordan et al., 2024).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = g.shape[0] > g.shape[1]
    x = g.T if tall else g
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x


class Muon:
    """Momentum, then an orthogonalised step: for the ternary matrices, 2-d each."""

    def __init__(self, parameters, momentum=0.95):
        self.parameters, self.momentum = list(parameters), momentum
        self.buffers = [torch.zeros_like(p) for p in self.parameters]

    @torch.no_grad()
    def step(self, learning_rate, weight_decay):
        for p, buffer in zip(self.parameters, self.buffers):
            buffer.lerp_(p.grad, 1 - self.momentum)
            update = orthogonalize(p.grad.lerp(buffer, self.momentum))
            p.mul_(1 - learning_rate * weight_decay)
            p.add_(update, alpha=-learning_rate * max(1, p.shape[0] / p.shape[1]) ** 0.5)


def schedule(progress):
    """Factor on the learning rates: short warm-up, constant until 45 %, then linear to zero."""
    if progress < 0.02:
        return max(progress, 0.001) / 0.02
    return min(1.0, (1 - progress) / 0.55)


# ---------------------------------------------------------------------------------------------
# Training


class Trainer:
    def __init__(self, args, config, tokenizer, stories, valid, books):
        self.args, self.config = args, config
        torch.manual_seed(args.seed)
        self.rng = random.Random(args.seed)
        self.model = StoryModel(config)
        self.forward = torch.compile(self.model, dynamic=False) if args.compile else self.model
        self.muon = Muon(p for n, p in self.model.named_parameters() if "proj" in n)
        others = [p for n, p in self.model.named_parameters() if "proj" not in n]
        self.adam = torch.optim.AdamW(others, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.0)
        self.stories, self.books = encode(tokenizer, stories), encode(tokenizer, books)
        self.valid = encode(tokenizer, valid)
        self.valid_bytes = sum(len(s.encode()) for s in valid)
        self.length, self.batches = None, None
        self.state = {"step": 0, "seconds": 0.0, "tokens": 0}
        self.log_file = (args.work / "log.jsonl").open("a")

    def set_length(self, length):
        self.length, self.rows = length, self.args.batch_tokens // length
        self.batches = Batches(self.stories, self.books, length, self.rows, self.rng)
        self.rope = rope_table(self.config, length)
        self.valid_rows = pack(pieces(self.valid, length), length)

    def loss(self, ids, targets, segments, drop, reduction):
        logits = self.forward(ids, self.rope, attention_mask(segments), drop)
        return F.cross_entropy(logits, targets.flatten(), ignore_index=IGNORE, reduction=reduction)

    def dropout_noise(self):
        p = self.args.dropout
        if p == 0:
            return None
        size = (self.rows * self.length, self.config.hidden_size)
        return torch.rand(size).ge_(p).div_(1 - p)

    def step(self, progress):
        ids, targets, segments = self.batches.next(self.args.book_share * (1 - progress))
        loss = self.loss(ids, targets, segments, self.dropout_noise(), "mean")
        loss.backward()
        factor = schedule(progress)
        decay = self.args.weight_decay
        self.muon.step(self.args.matrix_lr * factor, decay)
        for group in self.adam.param_groups:
            group["lr"] = self.args.vector_lr * factor
        self.adam.step()
        self.model.zero_grad(set_to_none=True)
        return loss.item(), int((targets != IGNORE).sum())

    @torch.no_grad()
    def validate(self):
        """Nats per token and bits per byte of the held-out stories."""
        ids, targets, segments = self.valid_rows
        padding = -len(ids) % self.rows
        ids = F.pad(ids, (0, 0, 0, padding))
        targets = F.pad(targets, (0, 0, 0, padding), value=IGNORE)
        segments = F.pad(segments, (0, 0, 0, padding), value=-1)
        nats = 0.0
        for i in range(0, len(ids), self.rows):
            part = slice(i, i + self.rows)
            nats += self.loss(ids[part], targets[part], segments[part], None, "sum").item()
        return nats / int((targets != IGNORE).sum()), nats / math.log(2) / self.valid_bytes

    def log(self, **values):
        values = {k: round(v, 5) if isinstance(v, float) else v for k, v in values.items()}
        line = json.dumps(values)
        print(line, flush=True)
        self.log_file.write(line + "\n")
        self.log_file.flush()

    def save(self):
        state = {
            "config": asdict(self.config), "model": self.model.state_dict(),
            "muon": self.muon.buffers, "adam": self.adam.state_dict(), "state": self.state,
        }
        temporary = self.args.work / "checkpoint.tmp"
        torch.save(state, temporary)
        os.replace(temporary, self.args.work / "checkpoint.pt")

    def resume(self):
        saved = torch.load(self.args.work / "checkpoint.pt")
        self.model.load_state_dict(saved["model"])
        self.muon.buffers = saved["muon"]
        self.adam.load_state_dict(saved["adam"])
        self.state = saved["state"]
        # Another order than the first run's, whose batches were used already.
        self.rng.seed(self.args.seed + self.state["step"])

    def run(self):
        """Train until the minutes are used; progress is time, so a slow machine still ends."""
        args, state, budget = self.args, self.state, self.args.minutes * 60
        last, next_report, losses = time.monotonic(), state["seconds"], []
        while state["seconds"] < budget:
            progress = state["seconds"] / budget
            # Short rows first: cheaper, and most stories fit.
            length = args.context // 2 if progress < args.short_rows else args.context
            if length != self.length:
                self.set_length(length)
            loss, tokens = self.step(progress)
            losses.append(loss)
            state["step"] += 1
            state["tokens"] += tokens
            now = time.monotonic()
            state["seconds"] += now - last
            last = now
            if state["seconds"] >= next_report:
                self.report(losses, progress)
                losses, next_report = [], state["seconds"] + args.report_seconds
        valid_loss, bits_per_byte = self.validate()
        self.log(final=True, **state, valid=valid_loss, bits_per_byte=bits_per_byte)
        self.save()

    def report(self, losses, progress):
        valid_loss, bits_per_byte = self.validate()
        self.log(
            progress=progress, **self.state, train=sum(losses) / len(losses), valid=valid_loss,
            bits_per_byte=bits_per_byte,
        )
        self.save()


# ---------------------------------------------------------------------------------------------
# Export


def pack_codes(codes):
    """(n, k) codes to (n / 4, k) bytes: bits 2i of stored row r hold row i * n / 4 + r, plus 1."""
    n = codes.shape[0]
    assert n % 4 == 0
    quarters = (codes.to(torch.uint8) + 1).view(4, n // 4, -1)
    return quarters[0] | quarters[1] << 2 | quarters[2] << 4 | quarters[3] << 6


def unpack_codes(packed):
    return torch.cat([packed >> 2 * i & 3 for i in range(4)]).float() - 1


def export(model, config, tokenizer, out: Path):
    from safetensors.torch import save_file

    out.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for name, p in model.state_dict().items():
        if "proj" in name:
            codes, scale = ternarize(p)
            tensors[f"model.{name}"] = pack_codes(codes.to(torch.int8))
            tensors[f"model.{name}_scale"] = scale.bfloat16().reshape(1)
        else:
            tensors[f"model.{name}"] = p.bfloat16()
    save_file({k: v.contiguous() for k, v in tensors.items()}, out / "model.safetensors",
              metadata={"format": "pt"})
    (out / "model.safetensors").chmod(0o644)
    tokenizer.save(str(out / "tokenizer.json"))
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)

    def special(content):
        return {
            "content": content, "lstrip": False, "normalized": False, "rstrip": False,
            "single_word": False,
        }

    write_json(out / "config.json", {
        "architectures": ["BitNetForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": bos, "eos_token_id": eos, "hidden_act": "relu2",
        "initializer_range": 0.02, "model_type": "bitnet",
        **asdict(config),
        "quantization_config": {
            "linear_class": "autobitlinear", "quantization_mode": "offline",
            "quant_method": "bitnet",
        },
        "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True,
    })
    write_json(out / "generation_config.json", {
        "bos_token_id": bos, "eos_token_id": [eos], "do_sample": True, "temperature": 0.7,
        "top_k": 40, "top_p": 0.9, "max_length": config.max_position_embeddings,
    })
    write_json(out / "special_tokens_map.json", {
        "bos_token": special(BOS), "eos_token": special(EOS),
    })
    write_json(out / "tokenizer_config.json", {
        "added_tokens_decoder": {
            str(i): {**special(t), "special": True} for i, t in ((bos, BOS), (eos, EOS))
        },
        "bos_token": BOS,
        # The model continues a story and knows no dialogue: the last user message is the beginning.
        "chat_template": (
            "{{ bos_token }}{% for message in messages %}{% if loop.last %}"
            "{{ message['content'] | trim }}{% endif %}{% endfor %}"
        ),
        "clean_up_tokenization_spaces": False, "eos_token": EOS,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": config.max_position_embeddings,
        "tokenizer_class": "PreTrainedTokenizerFast",
    })


def write_json(path: Path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n")


def load_exported(folder: Path):
    """The exported file as a `StoryModel`, and its tokenizer.

    A master weight is rebuilt as codes * scale / share of non-zero codes: its absmean is the scale
    and its codes are the file's, so the same forward serves (zeros stay zeros, the rest rounds to
    +-1 as the share is at most 1).
    """
    from safetensors.torch import load_file
    from tokenizers import Tokenizer

    fields = json.loads((folder / "config.json").read_text())
    config = Config(**{k: fields[k] for k in asdict(Config())})
    model, tensors = StoryModel(config), load_file(folder / "model.safetensors")
    state = {}
    for name in model.state_dict():
        tensor = tensors[f"model.{name}"]
        if "proj" in name:
            codes, scale = unpack_codes(tensor), tensors[f"model.{name}_scale"].float()
            tensor = codes * scale / codes.abs().mean()
        state[name] = tensor.float()
    model.load_state_dict(state)
    return model.eval(), Tokenizer.from_file(str(folder / "tokenizer.json"))


def logits_of(model, ids):
    ids = torch.tensor([ids])
    mask = attention_mask(torch.zeros_like(ids))
    return model(ids, rope_table(model.c, ids.shape[1]), mask, None)


@torch.no_grad()
def measure(folder: Path, valid):
    """Held-out nats per token and bits per byte of the exported model, a story at a time."""
    model, tokenizer = load_exported(folder)
    nats, tokens = 0.0, 0
    for part in pieces(encode(tokenizer, valid), model.c.max_position_embeddings):
        logits = logits_of(model, part[:-1])
        nats += F.cross_entropy(logits, torch.tensor(part[1:]), reduction="sum").item()
        tokens += len(part) - 1
    return nats / tokens, nats / math.log(2) / sum(len(s.encode()) for s in valid)


@torch.no_grad()
def generate(folder: Path, prompt, seed, temperature=0.7, top_k=40):
    """A story from the exported model; temperature 0 is greedy. Slow: no KV cache."""
    model, tokenizer = load_exported(folder)
    generator = torch.Generator().manual_seed(seed)
    ids = tokenizer.encode(prompt).ids
    while len(ids) < model.c.max_position_embeddings:
        logits = logits_of(model, ids)[-1]
        if temperature == 0:
            token = int(logits.argmax())
        else:
            values, indices = logits.topk(top_k)
            probabilities = (values / temperature).softmax(-1)
            token = int(indices[torch.multinomial(probabilities, 1, generator=generator)])
        if token == tokenizer.token_to_id(EOS):
            break
        ids.append(token)
    return tokenizer.decode(ids)


@torch.no_grad()
def check(folder: Path, valid):
    """Compare our forward with transformers' in float32 on a held-out story, and generate."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    # Unquantised tensors stay bfloat16 on loading, whatever the dtype asked for; `to` moves them.
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    theirs = theirs.to(torch.float32).eval()
    ours, tokenizer = load_exported(folder)
    their_tokenizer = AutoTokenizer.from_pretrained(folder)
    # A rounding tie that falls the other way moves all later logits, so short prompts come first:
    # there the two agree to float32 noise.
    for text in (PROMPT, valid[0][:40], *valid[:4]):
        ids = tokenizer.encode(text).ids
        assert ids == their_tokenizer(text).input_ids
        ids = ids[: ours.c.max_position_embeddings]
        a, b = logits_of(ours, ids), theirs(torch.tensor([ids])).logits[0]
        agree = (a.argmax(-1) == b.argmax(-1)).float().mean().item()
        difference = (a - b).abs()
        print(f"{len(ids)} tokens: logits differ by at most {difference.max():.4f}, median "
              f"{difference.median():.2e}, first token {difference[0].max():.2e}; "
              f"argmax agrees on {agree:.4f}")
    chat = their_tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}], add_generation_prompt=True, return_dict=True,
        return_tensors="pt",
    )
    torch.manual_seed(0)
    print(their_tokenizer.decode(theirs.generate(**chat)[0]))


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--work", type=Path, default=Path("work"), help="log and checkpoint")
    parser.add_argument("--minutes", type=float, default=87)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--context", type=int, default=512)
    parser.add_argument("--short-rows", type=float, default=0.65,
                        help="share of the time spent on rows of context / 2")
    parser.add_argument("--matrix-lr", type=float, default=0.02)
    parser.add_argument("--vector-lr", type=float, default=4e-3)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--book-share", type=float, default=0.35,
                        help="of the rows, at first; it falls linearly to 0")
    parser.add_argument("--report-seconds", type=float, default=420)
    parser.add_argument("--hidden", type=int, default=Config.hidden_size)
    parser.add_argument("--intermediate", type=int, default=Config.intermediate_size)
    parser.add_argument("--layers", type=int, default=Config.num_hidden_layers)
    parser.add_argument("--heads", type=int, default=Config.num_attention_heads)
    parser.add_argument("--kv-heads", type=int, default=Config.num_key_value_heads)
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--export-only", action="store_true")
    parser.add_argument("--check", action="store_true", help="compare the export with transformers")
    return parser.parse_args()


def main():
    args = parse_arguments()
    torch.set_num_threads(args.threads)
    args.work.mkdir(parents=True, exist_ok=True)
    stories, valid, books = read_corpus(args.corpus)
    if args.check:
        check(args.out, valid)
        return
    config = Config(
        hidden_size=args.hidden, intermediate_size=args.intermediate,
        num_hidden_layers=args.layers, num_attention_heads=args.heads,
        num_key_value_heads=args.kv_heads, max_position_embeddings=args.context,
    )
    tokenizer = tokenizer_for(args, stories, books, config.vocab_size)
    if args.export_only:
        saved = torch.load(args.work / "checkpoint.pt")
        config = Config(**saved["config"])
        model = StoryModel(config)
        model.load_state_dict(saved["model"])
    else:
        trainer = Trainer(args, config, tokenizer, stories, valid, books)
        if args.resume:
            trainer.resume()
        trainer.run()
        model = trainer.model
    export(model, config, tokenizer, args.out)
    loss, bits_per_byte = measure(args.out, valid)
    print(f"exported: {loss:.4f} nats a token, {bits_per_byte:.4f} bits a byte, held-out stories")
    print(generate(args.out, PROMPT, args.seed))


if __name__ == "__main__":
    main()
