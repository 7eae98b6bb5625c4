#!/usr/bin/env python3
"""Makes vit.safetensors: a small vision transformer without and with the polyline mask, in float64 (stored as float32).

The plain network is torchvision's VisionTransformer; the masked one is written out here, its mask by walking the paths.
Weights and images by the formula of README.md, under timm's names. Needs torch, torchvision, safetensors.
"""
import os
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torchvision.models.vision_transformer import VisionTransformer
from ppma_torch import formula, unit

SIZE, PATCH, C, DEPTH, G, HIDDEN, CLASSES = 32, 8, 24, 2, 3, 96, 10
SIDE, D = SIZE // PATCH, C // G
N = SIDE * SIDE


def shapes(masked):
    s = {"cls_token": (1, 1, C), "pos_embed": (1, N + 1, C), "patch_embed.proj.weight": (C, 3, PATCH, PATCH), "patch_embed.proj.bias": (C,)}
    for n in range(DEPTH):
        b = f"blocks.{n}."
        s.update({b + "norm1.weight": (C,), b + "norm1.bias": (C,), b + "attn.qkv.weight": (3 * C, C), b + "attn.qkv.bias": (3 * C,),
                  b + "attn.proj.weight": (C, C), b + "attn.proj.bias": (C,)})
        if masked:
            s.update({b + "attn.path_embed.dt_bias": (G,), b + "attn.path_embed.A_log": (G,), b + "attn.path_embed.dt_linear.weight": (2, D)})
        s.update({b + "norm2.weight": (C,), b + "norm2.bias": (C,), b + "mlp.fc1.weight": (HIDDEN, C), b + "mlp.fc1.bias": (HIDDEN,),
                  b + "mlp.fc2.weight": (C, HIDDEN), b + "mlp.fc2.bias": (C,)})
    s.update({"norm.weight": (C,), "norm.bias": (C,), "head.weight": (CLASSES, C), "head.bias": (CLASSES,)})
    return s


def walk(la, lb):
    """Log masks (B,G,N,N) of the V2H paths: from the key down or up its column to the query's row, then along that row."""
    edge = lambda v, a, b: sum((v[t] for t in range(min(a, b) + 1, max(a, b) + 1)), torch.zeros_like(v[0]))
    rows = []
    for i in range(SIDE):
        for j in range(SIDE):
            row = [edge([la[..., i, t] for t in range(SIDE)], j, l) + edge([lb[..., t, l] for t in range(SIDE)], i, k)
                   for k in range(SIDE) for l in range(SIDE)]
            rows.append(torch.stack(row, -1))
    return torch.stack(rows, -2)


def forward(w, x, masked):
    x = F.conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], PATCH).flatten(2).transpose(1, 2)
    x = torch.cat([w["cls_token"].expand(x.shape[0], -1, -1), x], 1) + w["pos_embed"]
    for n in range(DEPTH):
        p = lambda name: w[f"blocks.{n}.{name}"]
        y = F.layer_norm(x, (C,), p("norm1.weight"), p("norm1.bias"), 1e-6)
        q, k, v = F.linear(y, p("attn.qkv.weight"), p("attn.qkv.bias")).view(-1, N + 1, 3, G, D).permute(2, 0, 3, 1, 4)
        s = q @ k.transpose(-1, -2) * D ** -0.5
        if masked:
            t = y[:, 1:].view(-1, SIDE, SIDE, G, D)
            z = torch.einsum("bijgd,rd->rbgij", t, p("attn.path_embed.dt_linear.weight")) + p("attn.path_embed.dt_bias").view(G, 1, 1)
            la, lb = -p("attn.path_embed.A_log").exp().view(G, 1, 1) * F.softplus(z)
            m = F.pad(walk(la, lb), (1, 0, 1, 0))
            a = 0.5 * ((s + m).softmax(-1) + (s + m.transpose(-1, -2)).softmax(-1))
        else:
            a = s.softmax(-1)
        x = x + F.linear((a @ v).transpose(1, 2).reshape(-1, N + 1, C), p("attn.proj.weight"), p("attn.proj.bias"))
        y = F.layer_norm(x, (C,), p("norm2.weight"), p("norm2.bias"), 1e-6)
        x = x + F.linear(F.gelu(F.linear(y, p("mlp.fc1.weight"), p("mlp.fc1.bias"))), p("mlp.fc2.weight"), p("mlp.fc2.bias"))
    return F.linear(F.layer_norm(x, (C,), w["norm.weight"], w["norm.bias"], 1e-6)[:, 0], w["head.weight"], w["head.bias"])


def torchvision_forward(w, x):
    m = VisionTransformer(SIZE, PATCH, DEPTH, G, C, HIDDEN, num_classes=CLASSES).double().eval()
    names = {"cls_token": "class_token", "pos_embed": "encoder.pos_embedding", "patch_embed.proj": "conv_proj", "norm": "encoder.ln", "head": "heads.head"}
    for n in range(DEPTH):
        for a, b in {"norm1": "ln_1", "attn.proj": "self_attention.out_proj", "norm2": "ln_2", "mlp.fc1": "mlp.0", "mlp.fc2": "mlp.3"}.items():
            names[f"blocks.{n}.{a}"] = f"encoder.layers.encoder_layer_{n}.{b}"
    state = {}
    for k, t in w.items():
        stem, _, leaf = k.rpartition(".")
        if k in names: state[names[k]] = t
        elif stem.endswith("attn.qkv"): state[f"encoder.layers.encoder_layer_{stem.split('.')[1]}.self_attention.in_proj_{leaf}"] = t
        else: state[f"{names[stem]}.{leaf}"] = t
    m.load_state_dict(state)
    with torch.no_grad(): return m(x)


if __name__ == "__main__":
    image = (1.5 * (2 * unit("vit.input", 2 * 3 * SIZE * SIZE) - 1)).float().double().view(2, 3, SIZE, SIZE)
    target = torch.tensor([3, 8])
    out = {}
    for name, masked in (("none", False), ("polyline", True)):
        w = {k: formula(k, s).requires_grad_(True) for k, s in shapes(masked).items()}
        logits = forward(w, image, masked)
        if not masked:
            assert (logits - torchvision_forward({k: t.detach() for k, t in w.items()}, image)).abs().max() < 1e-12
        F.cross_entropy(logits, target).backward()
        out[name + ".logits"] = logits.detach()
        out.update({f"{name}.grad.{k}": t.grad for k, t in w.items()})
    out = {k: v.float().contiguous() for k, v in out.items()}
    save_file({**out, "target": target}, os.path.join(os.path.dirname(os.path.abspath(__file__)), "vit.safetensors"))
    print("none", out["none.logits"][0, :3].tolist(), "polyline", out["polyline.logits"][0, :3].tolist())
