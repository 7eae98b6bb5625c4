"""Vicinity Vision Transformer (Sun et al., 2022) in PyTorch, written from the paper: what tests/networks compares with, and a
peer to time.

Names of tensors and what the paper leaves open are those of the published checkpoint of VVT-tiny: the mean of the tokens is
not squeezed (C -> C -> C), and the sums of products, the normalisers, their products, and what comes of the output layer keep
their sign while their magnitudes are held between 1e-4 and 1e4. See common.py for `make` and `bench`.
"""
import math
import torch
from torch import nn
import torch.nn.functional as F

from common import DropPath, main

RATIOS = [8, 8, 4, 4]  # of the feed-forward layers


def held(t):
    return t.sign() * t.abs().clamp(1e-4, 1e4)


class Vicinity(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.k_proj, self.v_proj, self.q_proj = (nn.Linear(dim, dim // 2) for _ in range(3))
        self.out_proj = nn.Linear(dim // 2, dim)
        self.se_fc = nn.Sequential(nn.Linear(dim, dim, bias=False), nn.ReLU(), nn.Linear(dim, dim, bias=False), nn.Sigmoid())

    def forward(self, x):  # (B,H,W,C)
        b, h, w, c = x.shape; n, d = h * w, c // 2 // self.heads
        quarter = lambda m: torch.arange(m, device=x.device, dtype=x.dtype) * (math.pi / 2 / m)
        rows, columns = quarter(h)[:, None].expand(h, w), quarter(w).expand(h, w)
        turns = torch.stack((rows.cos(), rows.sin(), columns.cos(), columns.sin()), -1).view(n, 4, 1)
        split = lambda l: l(x).view(b, n, self.heads, d).transpose(1, 2)  # (B,G,N,d)
        turned = lambda l: (split(l).relu().unsqueeze(-2) * turns).flatten(-2)  # (B,G,N,4d)
        q, k = turned(self.q_proj), turned(self.k_proj)
        sums = held(k.transpose(-1, -2) @ split(self.v_proj))
        z = held(1 / ((q * k.sum(-2, keepdim=True)).sum(-1, keepdim=True) + 1e-4))
        y = held(held(q @ sums) * z)
        y = held(self.out_proj(y.transpose(1, 2).reshape(b, h, w, c // 2)))
        return held(y + y * self.se_fc(x.mean((1, 2), keepdim=True)))


class Mlp(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.fc1, self.dwconv = nn.Linear(dim, hidden), nn.ModuleDict({"dwconv": nn.Conv2d(hidden, hidden, 3, 1, 1, groups=hidden)})
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x):
        x = self.dwconv.dwconv(self.fc1(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.fc2(F.gelu(x))


class Block(nn.Module):
    def __init__(self, dim, heads, ratio, drop):
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim, eps=1e-6), Vicinity(dim, heads), nn.LayerNorm(dim, eps=1e-6)
        self.mlp, self.drop_path = Mlp(dim, ratio * dim), DropPath(drop)

    def forward(self, x):
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Embed(nn.Module):
    def __init__(self, i, o, kernel, stride):
        super().__init__()
        self.proj, self.norm = nn.Conv2d(i, o, kernel, stride, kernel // 2), nn.LayerNorm(o)

    def forward(self, x):
        return self.norm(self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class Vvt(nn.Module):
    def __init__(self, dims=(96, 160, 320, 512), depths=(2, 2, 2, 2), heads=(1, 2, 5, 8), classes=1000, drop_path=0.1):
        super().__init__()
        rates = torch.linspace(0, drop_path, sum(depths), device="cpu").tolist()
        for i, depth in enumerate(depths):
            setattr(self, f"patch_embed{i + 1}", Embed(dims[i - 1] if i else 3, dims[i], 3 if i else 7, 2 if i else 4))
            setattr(self, f"block{i + 1}", nn.ModuleList(Block(dims[i], heads[i], RATIOS[i], rates[sum(depths[:i]) + j]) for j in range(depth)))
            setattr(self, f"norm{i + 1}", nn.LayerNorm(dims[i], eps=1e-6))
        self.head = nn.Linear(dims[3], classes)

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        for i in range(1, 5):
            x = getattr(self, f"patch_embed{i}")(x)
            for block in getattr(self, f"block{i}"): x = block(x)
            x = getattr(self, f"norm{i}")(x)
        return self.head(x.mean((1, 2)))


if __name__ == "__main__":
    # a width at which no number lies where it begins to be held, or a relu
    small = dict(dims=(12, 12, 16, 16), depths=(1, 1, 2, 1), heads=(1, 2, 2, 4), classes=5, drop_path=0)
    main("vvt", lambda: Vvt(**small),
         {"network": "vvt", "depths": small["depths"], "dims": small["dims"], "heads": small["heads"], "num_classes": 5, "drop_path_rate": 0}, Vvt,
         size=(64, 48))
