"""What the peers of this folder share: files of references, names and shapes, timing. Needs torch and safetensors.

  python X_torch.py make     writes X.safetensors (a narrow, shallow network: logits and gradients, float64 stored as
                             float32, weights and images by the formula of ../README.md) and X.json (the published
                             one's names and shapes)
  python X_torch.py bench --batch 8 --size 224 --dtype f32 --device cpu [--train] [--compile] [--stand-by]
"""
import argparse
import json
import os
import sys
import time

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from ppma_torch import formula, unit


def fill(model):
    """Weights by formula, in float64."""
    model = model.double()
    model.load_state_dict({k: formula(k, tuple(v.shape)).to(v.dtype) for k, v in model.state_dict().items()})
    return model


def image(name, *shape):
    n = torch.Size(shape).numel()
    return ((2 * unit(name, n) - 1) * 1.5).float().double().view(shape)


def make(name, small, config, published, size):
    """References of the module `small`, which `config` describes to ppma; names of `published` (on torch's meta device)."""
    model = fill(small).eval()
    pixels = image(name + ".input", 2, 3, *size)
    target = torch.tensor([1, 3])
    with torch.no_grad():
        first = model(pixels)
    logits = model.train()(pixels)
    F.cross_entropy(logits, target).backward()
    out = {"logits": logits.detach(), "target": target}
    out.update({"grad." + k: p.grad for k, p in model.named_parameters()})
    out["eval.logits"] = first
    out = {k: (v.float() if v.is_floating_point() else v).contiguous() for k, v in out.items()}
    save_file(out, os.path.join(HERE, name + ".safetensors"), {"config": json.dumps(config), "size": json.dumps(size)})
    state = published.state_dict()
    total = sum(p.numel() for p in published.parameters())
    rows = ",\n".join(json.dumps({"name": k, "shape": list(v.shape)}) for k, v in state.items())
    with open(os.path.join(HERE, name + ".json"), "w") as f:
        f.write('{"model": "%s_tiny", "num_parameters": %d, "entries": [\n%s\n]}\n' % (name, total, rows))
    print(name, logits.detach()[0].tolist(), "published:", total, "parameters in", len(state), "tensors")


def main(name, small, config, build, size=(48, 40)):
    """The command line; small() and build() make the narrow and the published network, `size` is of the narrow one's images."""
    p = argparse.ArgumentParser()
    p.add_argument("what", choices=["make", "bench"])
    p.add_argument("--batch", type=int, default=8)
    p.add_argument("--size", type=int, default=224)
    p.add_argument("--dtype", choices=["f32", "bf16", "tf32"], default="f32")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    p.add_argument("--repeat", type=int, default=10)
    p.add_argument("--train", action="store_true")
    p.add_argument("--compile", action="store_true")
    p.add_argument("--stand-by", action="store_true", help="compile, print `ready`, wait for a line, time")
    o = p.parse_args()
    if o.what == "make":
        with torch.device("meta"):
            published = build()
        return make(name, small(), config, published, size)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = o.dtype == "tf32"
    model = build().to(o.device).train(o.train)
    # weights stay f32, as in ppma: autocast computes products in bf16
    narrow = lambda: torch.autocast(o.device, torch.bfloat16, enabled=o.dtype == "bf16")
    run = torch.compile(model) if o.compile else model
    x = torch.randn(o.batch, 3, o.size, o.size, device=o.device).to(memory_format=torch.channels_last)
    y = torch.randint(1000, (o.batch,), device=o.device)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, weight_decay=0.05)

    def step():
        if not o.train:
            with torch.no_grad(), narrow():
                return run(x)
        with narrow():
            loss = F.cross_entropy(run(x).float(), y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    wait = torch.cuda.synchronize if o.device == "cuda" else lambda: None
    if o.stand_by:
        for n in range(2):
            step()
        wait()
        if o.device == "cuda":
            torch.cuda.empty_cache()
        print("ready", flush=True)
        sys.stdin.readline()
    times = []
    for n in range(o.repeat + 4):
        wait()
        begin = time.perf_counter()
        step()
        wait()
        if n >= 4:
            times.append(time.perf_counter() - begin)
    median = sorted(times)[len(times) // 2]
    peak = torch.cuda.max_memory_allocated() / 2**20 if o.device == "cuda" else 0
    print(json.dumps({"model": name + "_tiny", "batch": o.batch, "dtype": o.dtype, "device": o.device, "train": o.train, "compile": o.compile,
                      "ms": round(1000 * median, 3), "images_per_s": round(o.batch / median, 2), "peak_MiB": round(peak, 1)}))


class DropPath(torch.nn.Module):
    """A branch's samples dropped with probability p, in training."""

    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training or self.p == 0:
            return x
        keep = torch.rand(x.shape[0], *[1] * (x.dim() - 1), device=x.device) >= self.p
        return x * keep.to(x.dtype) / (1 - self.p)
