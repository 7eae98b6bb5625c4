"""Spatial-Mamba (Xiao et al., 2025) in PyTorch, written from the paper, under the names of the authors' checkpoints. See
common.py for `make` and `bench`. Tokens are channels last. Beyond the grid the states' convolutions see the edge repeated
in training, and zeros in evaluation, as the authors' program does.
"""
import torch
import torch.nn.functional as F
from torch import nn

from common import DropPath, main
from vmamba_torch import Mlp, first, last, sums


class Conv(nn.Module):
    """Convolution, batch norm, ReLU; the last two where they are wanted."""

    def __init__(self, a, b, k, stride=1, groups=1, bias=True, norm=True, act=True):
        super().__init__()
        self.conv = nn.Conv2d(a, b, k, stride, k // 2, groups=groups, bias=bias)
        self.norm = nn.BatchNorm2d(b) if norm else None
        self.act = act

    def forward(self, x):
        x = self.conv(x)
        x = x if self.norm is None else self.norm(x)
        return F.relu(x) if self.act else x


class Stem(nn.Module):
    def __init__(self, c):
        super().__init__()
        h = c // 2
        self.conv1 = Conv(3, h, 3, 2, bias=False)
        self.conv2 = nn.Sequential(Conv(h, h, 3, bias=False), Conv(h, h, 3, bias=False, act=False))
        self.conv3 = nn.Sequential(Conv(h, 4 * c, 3, 2, bias=False), Conv(4 * c, c, 1, bias=False, act=False))

    def forward(self, x):
        x = self.conv1(x)
        return last(self.conv3(self.conv2(x) + x))


class Down(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.conv = nn.Sequential(Conv(a, 4 * b, 1, norm=False), Conv(4 * b, 4 * b, 3, 2, 4 * b, norm=False), Conv(4 * b, b, 1, act=False))

    def forward(self, x):
        return last(self.conv(first(x)))


class Fusion(nn.Module):
    def __init__(self, c):
        super().__init__()
        for name in ("kernel_3", "kernel_3_1", "kernel_3_2"):
            setattr(self, name, nn.Parameter(torch.ones(c, 1, 3, 3)))
        self.alpha = nn.Parameter(torch.ones(3))

    def forward(self, h):
        """h (B,E,H,W)"""
        y = 0
        for a, k, d in zip(self.alpha, (self.kernel_3, self.kernel_3_1, self.kernel_3_2), (1, 3, 5)):
            padded = F.pad(h, (d, d, d, d), "replicate" if self.training else "constant")
            y = y + a * F.conv2d(padded, k, dilation=d, groups=h.shape[1])
        return y


class SSM(nn.Module):
    def __init__(self, c):
        super().__init__()
        e, r = 2 * c, -(-c // 16)
        self.rank = r
        self.x_proj_weight = nn.Parameter(torch.randn(r + 2, e) * e ** -0.5)
        self.dt_projs_weight = nn.Parameter(torch.randn(e, r) * r ** -0.5)
        self.dt_projs_bias = nn.Parameter(torch.full((e,), -4.6))
        self.A_logs, self.Ds = nn.Parameter(torch.zeros(e, 1)), nn.Parameter(torch.ones(e))
        self.in_proj = nn.Linear(c, 2 * e, bias=False)
        self.conv2d = nn.Conv2d(e, e, 3, padding=1, groups=e)
        self.state_fusion = Fusion(e)
        self.out_norm, self.out_proj = nn.LayerNorm(e), nn.Linear(e, c, bias=False)

    def forward(self, x):
        u, z = self.in_proj(x).chunk(2, -1)
        u = F.silu(last(self.conv2d(first(u))))
        dt, b, c = F.linear(u, self.x_proj_weight).split((self.rank, 1, 1), -1)
        dt = F.softplus(F.linear(dt, self.dt_projs_weight, self.dt_projs_bias))
        s = sums((-dt * self.A_logs[:, 0].exp()).exp().flatten(1, 2), (dt * b * u).flatten(1, 2), 1).view(u.shape)
        y = last(self.state_fusion(first(s))) * c + u * self.Ds
        return self.out_proj(self.out_norm(y) * F.silu(z))


class Block(nn.Module):
    def __init__(self, c, drop):
        super().__init__()
        position = lambda: nn.Conv2d(c, c, 3, padding=1, groups=c)
        self.cpe1, self.ln_1, self.SASSM = position(), nn.LayerNorm(c), SSM(c)
        self.cpe2, self.ln_2, self.mlp = position(), nn.LayerNorm(c), Mlp(c)
        self.drop = DropPath(drop)

    def forward(self, x):
        x = x + last(self.cpe1(first(x)))
        x = x + self.drop(self.SASSM(self.ln_1(x)))
        x = x + last(self.cpe2(first(x)))
        return x + self.drop(self.mlp(self.ln_2(x)))


class SpatialMamba(nn.Module):
    def __init__(self, depths=(2, 4, 8, 4), dims=(64, 128, 256, 512), classes=1000, drop=0.2):
        super().__init__()
        self.patch_embed = Stem(dims[0])
        rates = iter(torch.linspace(0, drop, sum(depths), device="cpu").tolist())
        self.layers = nn.ModuleList()
        for s, (n, c) in enumerate(zip(depths, dims)):
            layer = nn.Module()
            layer.blocks = nn.Sequential(*(Block(c, next(rates)) for _ in range(n)))
            layer.downsample = nn.Identity() if s == 3 else Down(c, dims[s + 1])
            self.layers.append(layer)
        self.norm, self.head = nn.LayerNorm(dims[-1]), nn.Linear(dims[-1], classes)

    def forward(self, x):
        x = self.patch_embed(x)
        for layer in self.layers:
            x = layer.downsample(layer.blocks(x))
        return self.head(self.norm(x).mean((1, 2)))


if __name__ == "__main__":
    small = dict(depths=(1, 1, 2, 1), dims=(6, 8, 12, 18), classes=5, drop=0)
    main("spatial_mamba", lambda: SpatialMamba(**small),
         {"network": "spatial_mamba", "depths": small["depths"], "dims": small["dims"], "num_classes": 5, "drop_path_rate": 0}, SpatialMamba)
