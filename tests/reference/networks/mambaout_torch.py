"""MambaOut (Yu and Wang, 2025) in PyTorch, written from the paper, under the names of the authors' checkpoints.

`check` (needs timm 1.0.14 or newer) compares mambaout_tiny with timm's: the same weights, renamed as timm's own
checkpoint filter renames the authors', give the same logits within 1e-12 in float64. See common.py for `make` and `bench`.
"""
import sys

import torch
import torch.nn.functional as F
from torch import nn

from common import DropPath, fill, image, main

norm = lambda c: nn.LayerNorm(c, 1e-6)
first = lambda x: x.permute(0, 3, 1, 2)
last = lambda x: x.permute(0, 2, 3, 1)


class Stem(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, c // 2, 3, 2, 1), norm(c // 2)
        self.conv2, self.norm2 = nn.Conv2d(c // 2, c, 3, 2, 1), norm(c)

    def forward(self, x):
        x = F.gelu(self.norm1(last(self.conv1(x))))
        return self.norm2(last(self.conv2(first(x))))


class Down(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(a, b, 3, 2, 1), norm(b)

    def forward(self, x):
        return self.norm(last(self.conv(first(x))))


class Block(nn.Module):
    def __init__(self, c, drop):
        super().__init__()
        self.e = 8 * c // 3
        self.norm, self.fc1 = norm(c), nn.Linear(c, 2 * self.e)
        self.conv = nn.Conv2d(c, c, 7, padding=3, groups=c)
        self.fc2, self.drop = nn.Linear(self.e, c), DropPath(drop)

    def forward(self, x):
        c = x.shape[-1]
        g, i, u = self.fc1(self.norm(x)).split((self.e, self.e - c, c), -1)
        u = last(self.conv(first(u)))
        return x + self.drop(self.fc2(F.gelu(g) * torch.cat((i, u), -1)))


class Head(nn.Module):
    def __init__(self, c, classes):
        super().__init__()
        self.fc1, self.norm, self.fc2 = nn.Linear(c, 4 * c), norm(4 * c), nn.Linear(4 * c, classes)

    def forward(self, x):
        return self.fc2(self.norm(F.gelu(self.fc1(x))))


class MambaOut(nn.Module):
    def __init__(self, depths=(3, 3, 9, 3), dims=(96, 192, 384, 576), classes=1000, drop=0.2):
        super().__init__()
        self.downsample_layers = nn.ModuleList([Stem(dims[0])] + [Down(a, b) for a, b in zip(dims, dims[1:])])
        rates = iter(torch.linspace(0, drop, sum(depths), device="cpu").tolist())
        self.stages = nn.ModuleList(nn.Sequential(*(Block(c, next(rates)) for _ in range(n))) for c, n in zip(dims, depths))
        self.norm, self.head = norm(dims[-1]), Head(dims[-1], classes)

    def forward(self, x):
        for down, stage in zip(self.downsample_layers, self.stages):
            x = stage(down(x))
        return self.head(self.norm(x.mean((1, 2))))


def check():
    import timm
    from timm.models.mambaout import checkpoint_filter_fn
    ours, theirs = fill(MambaOut()).eval(), timm.create_model("mambaout_tiny").double().eval()
    theirs.load_state_dict(checkpoint_filter_fn(ours.state_dict(), theirs))
    x = image("check", 2, 3, 224, 224)
    with torch.no_grad():
        a, b = ours(x), theirs(x)
    print("timm", timm.__version__, "relative distance of logits:", ((a - b).norm() / b.norm()).item())


if __name__ == "__main__":
    small = dict(depths=(1, 2, 1, 1), dims=(8, 12, 16, 24), classes=5, drop=0)
    if sys.argv[1:] == ["check"]:
        check()
    else:
        main("mambaout", lambda: MambaOut(**small),
             {"network": "mambaout", "depths": small["depths"], "dims": small["dims"], "num_classes": 5, "drop_path_rate": 0}, MambaOut)
