#!/usr/bin/env python3
"""Writes optim.safetensors: what PyTorch's optimisers make of known gradients in float64, and the learning rates of the
published schedule, computed here from the formula of the training script (timm's cosine schedule, stepped once per epoch).

    python make_optim.py
"""
import math
import os

import torch
from safetensors.torch import save_file

OUT = {}


def run(name, make):
    """Six steps on a matrix (5,7) with decay 0.05 and a vector (37) without; step 3 has no gradient for the vector."""
    torch.manual_seed(1)
    w = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    b = torch.randn(37, dtype=torch.float64, requires_grad=True)
    OUT[f"{name}.matrix.0"], OUT[f"{name}.vector.0"] = w.detach().clone(), b.detach().clone()
    optimizer = make([{"params": [w], "weight_decay": 0.05}, {"params": [b], "weight_decay": 0.0}])
    for t in range(1, 7):
        w.grad = torch.sin(torch.arange(35, dtype=torch.float64) * 0.7 + t).view(5, 7) * 10.0 ** (t - 4)
        b.grad = None if t == 3 else torch.cos(torch.arange(37, dtype=torch.float64) * 0.3 - t)
        for group in optimizer.param_groups:
            group["lr"] = 0.01 * t
        optimizer.step()
        OUT[f"{name}.matrix.{t}"], OUT[f"{name}.vector.{t}"] = w.detach().clone(), b.detach().clone()


run("adamw", lambda groups: torch.optim.AdamW(groups, lr=1, betas=(0.9, 0.999), eps=1e-8))
run("sgd", lambda groups: torch.optim.SGD(groups, lr=1))
run("momentum", lambda groups: torch.optim.SGD(groups, lr=1, momentum=0.9))
run("nesterov", lambda groups: torch.optim.SGD(groups, lr=1, momentum=0.9, nesterov=True))

# Gradients and their norm, and clip_grad_norm_ to 2.
g = [torch.sin(torch.arange(40000, dtype=torch.float64)), torch.cos(torch.arange(33, dtype=torch.float64) * 2)]
p = [torch.zeros_like(x, requires_grad=True) for x in g]
for x, y in zip(p, g):
    x.grad = y.clone()
OUT["clip.norm"] = torch.nn.utils.clip_grad_norm_(p, 2.0).clone()
OUT["clip.vector"] = p[1].grad.clone()


def published(epoch, peak=1e-3, low=1e-6, final=1e-5, warmup=5, total=300):
    t = max(epoch - 1, 0)
    if t < warmup:
        return low + t * ((peak - low) / warmup)
    return final + 0.5 * (peak - final) * (1 + math.cos(math.pi * t / total))


OUT["rates"] = torch.tensor([published(e) for e in range(300)], dtype=torch.float64)

path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "optim.safetensors")
save_file({k: v.contiguous() for k, v in OUT.items()}, path, {"made_by": f"make_optim.py, PyTorch {torch.__version__}"})
print(path, len(OUT), "tensors")
