"""BiFormer (Zhu et al., CVPR 2023) in PyTorch, written from the paper: what tests/networks compares with, and a peer to time.

Names of tensors and what the paper leaves open are those of the published checkpoint of BiFormer-T: in the first three stages
scores are q.k C^-1/2 of all C channels, not of a head's; the last stage has whole attention in 8 heads of C/8 channels, without
a bias of q, k and v, whose convolution is on the tokens and not on v. See common.py for `make` and `bench`.
"""
import torch
from torch import nn
import torch.nn.functional as F

from common import DropPath, main

WINDOWS, ROUTED = 7, [1, 4, 16]  # regions on each axis; those that a region attends to, in stages 0, 1, 2


class Routed(nn.Module):
    """A region attends to the `most` regions that answer its mean best."""
    def __init__(self, dim, heads, most):
        super().__init__()
        self.heads, self.most = heads, most
        self.lepe = nn.Conv2d(dim, dim, 5, 1, 2, groups=dim)
        self.qkv, self.wo = nn.ModuleDict({"qkv": nn.Linear(dim, 3 * dim)}), nn.Linear(dim, dim)

    def forward(self, x):  # (B,H,W,C)
        height, width = x.shape[1:3]; s = WINDOWS
        x = F.pad(x, (0, 0, 0, -width % s, 0, -height % s))
        b, h, w, c = x.shape; n, d = h * w // (s * s), c // self.heads
        qkv = self.qkv.qkv(x)
        lepe = self.lepe(qkv[..., 2 * c:].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        q, k, v = qkv.view(b, s, h // s, s, w // s, 3, c).permute(5, 0, 1, 3, 2, 4, 6).reshape(3, b, s * s, n, c)
        answers = q.mean(2).detach() @ k.mean(2).detach().transpose(-1, -2)
        picks = answers.topk(self.most, -1).indices  # (B,R,k)
        take = lambda t: t[torch.arange(b, device=t.device)[:, None, None], picks].view(b, s * s, -1, self.heads, d).transpose(2, 3)
        scores = q.view(b, s * s, n, self.heads, d).transpose(2, 3) * c ** -0.5 @ take(k).transpose(-1, -2)
        y = (scores.softmax(-1) @ take(v)).transpose(2, 3)  # (B,R,n,G,d)
        y = y.reshape(b, s, s, h // s, w // s, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
        return self.wo(y + lepe)[:, :height, :width]


class Whole(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim, bias=False), nn.Linear(dim, dim)
        self.lepe = nn.Conv2d(dim, dim, 5, 1, 2, groups=dim)

    def forward(self, x):
        b, h, w, c = x.shape
        q, k, v = self.qkv(x).view(b, h * w, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = (q * (c // self.heads) ** -0.5 @ k.transpose(-1, -2)).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(b, h, w, c) + self.lepe(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class Block(nn.Module):
    def __init__(self, dim, attn, drop):
        super().__init__()
        self.pos_embed = nn.Conv2d(dim, dim, 3, 1, 1, groups=dim)
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(dim, eps=1e-6), attn, nn.LayerNorm(dim, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(dim, 3 * dim), nn.Identity(), nn.GELU(), nn.Linear(3 * dim, dim))
        self.drop_path = DropPath(drop)

    def forward(self, x):  # (B,H,W,C)
        x = x + self.pos_embed(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class BiFormer(nn.Module):
    def __init__(self, dims=(64, 128, 256, 512), depths=(2, 2, 8, 2), heads=(2, 4, 8, 8), classes=1000, drop_path=0.1):
        super().__init__()
        conv = lambda i, o: [nn.Conv2d(i, o, 3, 2, 1), nn.BatchNorm2d(o)]
        rates = torch.linspace(0, drop_path, sum(depths), device="cpu").tolist()
        self.downsample_layers = nn.ModuleList([nn.Sequential(*conv(3, dims[0] // 2), nn.GELU(), *conv(dims[0] // 2, dims[0]))])
        for i in range(3): self.downsample_layers.append(nn.Sequential(*conv(dims[i], dims[i + 1])))
        attn = lambda i: Routed(dims[i], heads[i], ROUTED[i]) if i < 3 else Whole(dims[i], heads[i])
        self.stages = nn.ModuleList(nn.Sequential(*(Block(dims[i], attn(i), rates[sum(depths[:i]) + j]) for j in range(depths[i]))) for i in range(4))
        self.norm, self.head = nn.BatchNorm2d(dims[3]), nn.Linear(dims[3], classes)

    def forward(self, x):
        for down, stage in zip(self.downsample_layers, self.stages):
            x = stage(down(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(self.norm(x).mean((2, 3)))


if __name__ == "__main__":
    small = dict(dims=(8, 12, 12, 16), depths=(1, 1, 2, 1), heads=(2, 3, 3, 2), classes=5, drop_path=0)
    # grids of 14 x 28, 7 x 14, 4 x 7: regions that fill them, and that do not
    main("biformer", lambda: BiFormer(**small),
         {"network": "biformer", "depths": small["depths"], "dims": small["dims"], "heads": small["heads"], "num_classes": 5, "drop_path_rate": 0},
         BiFormer, size=(56, 112))
