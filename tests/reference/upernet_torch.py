#!/usr/bin/env python3
"""UperNet, Semantic FPN and their network on PPMA in PyTorch: a readable oracle (make_heads.py) and a peer to race against.

Written for this project from docs/recipes.md, 2; parameter names are those of the published checkpoints.
  upernet_torch.py bench [--device cpu|cuda] [--model tiny|small|base] [--batch 16] [--size 512] [--dtype float32|tf32|bfloat16]
                         [--compile] [--train] [--threads 2] [--repeat 10]
A training step is loss (with the auxiliary head), backward and AdamW. Images (B,3,H,W); maps (B,C,H,W).
"""
import argparse, json, math, time
import torch
from torch import nn
import torch.nn.functional as F
from ppma_torch import PPMA, SIZES

up = lambda x, size: F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


class ConvModule(nn.Module):
    def __init__(self, i, o, k):
        super().__init__()
        self.conv, self.bn = nn.Conv2d(i, o, k, padding=k // 2, bias=False), nn.BatchNorm2d(o)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class UPerHead(nn.Module):
    def __init__(self, widths, channels=512, classes=150, scales=(1, 2, 3, 6), dropout=0.1):
        super().__init__()
        self.scales, self.dropout = scales, nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, classes, 1)
        self.psp_modules = nn.ModuleList(nn.Sequential(nn.AdaptiveAvgPool2d(s), ConvModule(widths[-1], channels, 1)) for s in scales)
        self.bottleneck = ConvModule(widths[-1] + len(scales) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvModule(c, channels, 1) for c in widths[:-1])
        self.fpn_convs = nn.ModuleList(ConvModule(channels, channels, 3) for _ in widths[:-1])
        self.fpn_bottleneck = ConvModule(len(widths) * channels, channels, 3)

    def forward(self, maps):
        top = maps[-1]
        levels = [conv(m) for conv, m in zip(self.lateral_convs, maps)]
        levels.append(self.bottleneck(torch.cat([top] + [up(p(top), top.shape[2:]) for p in self.psp_modules], 1)))
        for i in range(3, 0, -1): levels[i - 1] = levels[i - 1] + up(levels[i], levels[i - 1].shape[2:])
        levels = [conv(x) for conv, x in zip(self.fpn_convs, levels)] + [levels[3]]
        levels = [levels[0]] + [up(x, levels[0].shape[2:]) for x in levels[1:]]
        return self.conv_seg(self.dropout(self.fpn_bottleneck(torch.cat(levels, 1))))


class FCNHead(nn.Module):
    def __init__(self, width, channels=256, classes=150, dropout=0.1):
        super().__init__()
        self.conv_seg, self.convs, self.dropout = nn.Conv2d(channels, classes, 1), nn.ModuleList([ConvModule(width, channels, 3)]), nn.Dropout2d(dropout)

    def forward(self, x):
        return self.conv_seg(self.dropout(self.convs[0](x)))


class FPN(nn.Module):
    """Lateral 1x1, nearest top-down, 3x3; `extra` levels more by taking every second cell."""
    def __init__(self, widths, channels=256, extra=0):
        super().__init__()
        wrap = lambda conv: nn.ModuleDict({"conv": conv})
        self.lateral_convs = nn.ModuleList(wrap(nn.Conv2d(c, channels, 1)) for c in widths)
        self.fpn_convs = nn.ModuleList(wrap(nn.Conv2d(channels, channels, 3, padding=1)) for _ in widths)
        self.extra = extra

    def forward(self, maps):
        p = [c["conv"](m) for c, m in zip(self.lateral_convs, maps)]
        for i in range(3, 0, -1): p[i - 1] = p[i - 1] + F.interpolate(p[i], size=p[i - 1].shape[2:], mode="nearest")
        p = [c["conv"](x) for c, x in zip(self.fpn_convs, p)]
        for _ in range(self.extra): p.append(F.max_pool2d(p[-1], 1, stride=2))
        return p


class FPNHead(nn.Module):
    """Semantic FPN (Kirillov et al., 2019): each level by 3x3 convolutions and doublings to stride 4, summed."""
    def __init__(self, widths, channels=128, classes=150, dropout=0.1):
        super().__init__()
        self.conv_seg, self.dropout, self.scale_heads = nn.Conv2d(channels, classes, 1), nn.Dropout2d(dropout), nn.ModuleList()
        for i, c in enumerate(widths):
            layers = []
            for k in range(max(1, i)):
                layers.append(ConvModule(c if k == 0 else channels, channels, 3))
                if i > 0: layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            self.scale_heads.append(nn.Sequential(*layers))

    def forward(self, maps):
        y = self.scale_heads[0](maps[0])
        for head, m in zip(self.scale_heads[1:], maps[1:]): y = y + up(head(m), y.shape[2:])
        return self.conv_seg(self.dropout(y))


class Backbone(PPMA):
    """The four maps, each through its own layer norm; without the classifier's layers."""
    def __init__(self, other, widths):
        nn.Module.__init__(self)
        self.patch_embed, self.layers = other.patch_embed, other.layers
        for i, c in enumerate(widths): setattr(self, f"outnorm{i}", nn.LayerNorm(c))

    def forward(self, x):
        return [getattr(self, f"outnorm{i}")(m).permute(0, 3, 1, 2) for i, m in enumerate(self.features(x))]


class Segmentor(nn.Module):
    def __init__(self, ppma, widths, channels=512, classes=150, auxiliary_channels=256, dropout=0.1):
        super().__init__()
        self.backbone = Backbone(ppma, widths)
        self.decode_head, self.auxiliary_head = UPerHead(widths, channels, classes, dropout=dropout), FCNHead(widths[2], auxiliary_channels, classes, dropout)

    def forward(self, x):
        return up(self.decode_head(self.backbone(x)), x.shape[2:])

    def loss(self, x, labels):
        maps = self.backbone(x)
        part = lambda y: F.cross_entropy(up(y, labels.shape[1:]).float(), labels, ignore_index=255, reduction="none").mean()
        return part(self.decode_head(maps)) + 0.4 * part(self.auxiliary_head(maps[2]))


class Step(nn.Module):
    """Loss as a forward, so that all of it is compiled."""
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x, labels):
        return self.net.loss(x, labels)


def bench(a):
    dev = a.device
    if dev == "cpu": torch.set_num_threads(a.threads)
    else: torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = a.dtype != "float32"
    widths = SIZES[a.model][0]
    net = Segmentor(PPMA(*SIZES[a.model], drop_path={"tiny": 0.1, "small": 0.15, "base": 0.4}[a.model]), widths).to(dev)
    net.train(a.train)
    run = Step(net) if a.train else net
    if a.compile: run = torch.compile(run, dynamic=False)
    x, y = torch.randn(a.batch, 3, a.size, a.size, device=dev), torch.randint(0, 150, (a.batch, a.size, a.size), device=dev)
    cast = torch.autocast(dev, dtype=torch.bfloat16, enabled=a.dtype == "bfloat16")
    opt = torch.optim.AdamW(net.parameters(), lr=6e-5, weight_decay=0.05) if a.train else None

    def step():
        if a.train:
            opt.zero_grad(set_to_none=True)
            with cast: loss = run(x, y)
            loss.backward(); opt.step()
        else:
            with torch.no_grad(), cast: run(x)
    sync = torch.cuda.synchronize if dev == "cuda" else (lambda: None)
    for _ in range(3): step()
    sync(); ts = []
    if dev == "cuda": torch.cuda.reset_peak_memory_stats()
    for _ in range(a.repeat):
        t = time.perf_counter(); step(); sync(); ts.append(time.perf_counter() - t)
    t = sorted(ts)[len(ts) // 2]
    print(json.dumps({"peer": "torch " + torch.__version__, "network": "upernet", **{k: v for k, v in vars(a).items() if k != "what"}, "parameters": sum(p.numel() for p in net.parameters()),
                      "ms": round(t * 1e3, 3), "images_per_s": round(a.batch / t, 2), **({"peak_MiB": round(torch.cuda.max_memory_allocated() / 2**20)} if dev == "cuda" else {})}))


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["bench"])
    p.add_argument("--device", default="cpu"); p.add_argument("--model", default="tiny"); p.add_argument("--batch", type=int, default=16)
    p.add_argument("--size", type=int, default=512); p.add_argument("--dtype", default="float32"); p.add_argument("--threads", type=int, default=2)
    p.add_argument("--compile", action="store_true"); p.add_argument("--train", action="store_true"); p.add_argument("--repeat", type=int, default=10)
    bench(p.parse_args())
