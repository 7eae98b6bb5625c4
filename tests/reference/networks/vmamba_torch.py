"""VMamba (Liu et al., 2024; one state a channel, no multiplicative branch) in PyTorch, written from the paper, under the
names of the authors' checkpoints. See common.py for `make` and `bench`. Tokens are channels last.
"""
import torch
import torch.nn.functional as F
from torch import nn

from common import DropPath, main

first = lambda x: x.permute(0, 3, 1, 2)
last = lambda x: x.permute(0, 2, 3, 1)


def sums(decay, x, axis):
    """h_t = decay_t h_t-1 + x_t along an axis, in log2(N) steps."""
    step = 1
    while step < x.shape[axis]:
        rest = x.shape[axis] - step
        before = [torch.cat((torch.zeros_like(t.narrow(axis, 0, step)), t.narrow(axis, 0, rest)), axis) for t in (decay, x)]
        x, decay, step = x + decay * before[1], decay * before[0], 2 * step
    return x


def scan(u, dt, a, b, c, grid):
    """One state a channel: u, dt (B,H,W,E), a (E), b, c (B,H,W,1) -> (B,H,W,E): token after token, or along the rows and down the columns."""
    decay, x = (dt * a).exp(), dt * b * u
    if grid:
        return sums(decay, sums(decay, x, 2), 1) * c
    return sums(decay.flatten(1, 2), x.flatten(1, 2), 1).view(u.shape) * c


class SS2D(nn.Module):
    def __init__(self, c, grid=False):
        super().__init__()
        r = -(-c // 16)
        self.rank, self.grid = r, grid
        self.x_proj_weight = nn.Parameter(torch.randn(4, r + 2, c) * c ** -0.5)
        self.dt_projs_weight = nn.Parameter(torch.randn(4, c, r) * r ** -0.5)
        self.dt_projs_bias = nn.Parameter(torch.full((4, c), -4.6))
        self.A_logs = nn.Parameter(torch.zeros(4 * c, 1))
        self.Ds = nn.Parameter(torch.ones(4 * c))
        self.out_norm = nn.LayerNorm(c)
        self.in_proj = nn.Linear(c, c, bias=False)
        self.conv2d = nn.Conv2d(c, c, 3, padding=1, groups=c, bias=False)
        self.out_proj = nn.Linear(c, c, bias=False)

    def one(self, k, u):
        """The scan of a grid (B,H,W,E) by the parameters of order k."""
        c = u.shape[-1]
        dt, b, s = F.linear(u, self.x_proj_weight[k]).split((self.rank, 1, 1), -1)
        dt = F.softplus(F.linear(dt, self.dt_projs_weight[k], self.dt_projs_bias[k]))
        part = slice(k * c, (k + 1) * c)
        return scan(u, dt, -self.A_logs[part, 0].exp(), b, s, self.grid) + u * self.Ds[part]

    def forward(self, x):
        u = F.silu(last(self.conv2d(first(self.in_proj(x)))))
        y = 0
        for k in range(4):
            turn = lambda t: t.transpose(1, 2) if k % 2 else t
            back = lambda t: t.flip(1, 2) if k >= 2 else t
            y = y + turn(back(self.one(k, back(turn(u)))))
        return self.out_proj(self.out_norm(y))


class Mlp(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(c, 4 * c), nn.Linear(4 * c, c)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, c, drop, grid):
        super().__init__()
        self.norm, self.op = nn.LayerNorm(c), SS2D(c, grid)
        self.norm2, self.mlp = nn.LayerNorm(c), Mlp(c)
        self.drop = DropPath(drop)

    def forward(self, x):
        x = x + self.drop(self.op(self.norm(x)))
        return x + self.drop(self.mlp(self.norm2(x)))


class Last(nn.Module):
    forward = staticmethod(last)


class First(nn.Module):
    forward = staticmethod(first)


class VMamba(nn.Module):
    def __init__(self, depths=(2, 2, 8, 2), dims=(96, 192, 384, 768), classes=1000, drop=0.2, grid=False):
        super().__init__()
        c = dims[0]
        self.patch_embed = nn.Sequential(nn.Conv2d(3, c // 2, 3, 2, 1), Last(), nn.LayerNorm(c // 2), First(), nn.GELU(),
                                         nn.Conv2d(c // 2, c, 3, 2, 1), Last(), nn.LayerNorm(c))
        rates = iter(torch.linspace(0, drop, sum(depths), device="cpu").tolist())
        self.layers = nn.ModuleList()
        for s, (n, c) in enumerate(zip(depths, dims)):
            layer = nn.Module()
            layer.blocks = nn.Sequential(*(Block(c, next(rates), grid) for _ in range(n)))
            layer.downsample = nn.Identity() if s == 3 else nn.Sequential(
                First(), nn.Conv2d(c, dims[s + 1], 3, 2, 1), Last(), nn.LayerNorm(dims[s + 1]))
            self.layers.append(layer)
        self.classifier = nn.Module()
        self.classifier.norm, self.classifier.head = nn.LayerNorm(dims[-1]), nn.Linear(dims[-1], classes)

    def forward(self, x):
        x = self.patch_embed(x)
        for layer in self.layers:
            x = layer.downsample(layer.blocks(x))
        return self.classifier.head(self.classifier.norm(x).mean((1, 2)))


SMALL = dict(depths=(1, 1, 2, 1), dims=(8, 12, 18, 24), classes=5, drop=0)


def config(network):
    return {"network": network, "depths": SMALL["depths"], "dims": SMALL["dims"], "num_classes": 5, "drop_path_rate": 0}


if __name__ == "__main__":
    main("vmamba", lambda: VMamba(**SMALL), config("vmamba"), VMamba)
