#!/usr/bin/env python3
"""Makes detector_mm.pth and detector_mm.safetensors: a small Mask R-CNN as mmdet saves one (float16, weights by the formula
of README.md, names and layouts of mmdet 2.28), and what PyTorch makes of an image and of regions with it, float64 stored as
float32. Regions are by the formula under box.input and mask.input. Needs PyTorch. Run in this folder:  python make_detector_mm.py
"""
import torch
from torch import nn
import torch.nn.functional as F
from make_heads import image, write
from ppma_torch import PPMA, formula
from upernet_torch import Backbone, FPN

CLASSES, C, FC = 3, 8, 12


class Rpn(nn.Module):
    def __init__(self):
        super().__init__()
        self.rpn_conv, self.rpn_cls, self.rpn_reg = nn.Conv2d(C, C, 3, padding=1), nn.Conv2d(C, 3, 1), nn.Conv2d(C, 12, 1)

    def forward(self, x):
        x = F.relu(self.rpn_conv(x))
        return self.rpn_cls(x), self.rpn_reg(x)


class BoxHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc_cls, self.fc_reg = nn.Linear(FC, CLASSES + 1), nn.Linear(FC, 4 * CLASSES)
        self.shared_fcs = nn.ModuleList([nn.Linear(C * 49, FC), nn.Linear(FC, FC)])

    def forward(self, x):
        x = x.flatten(1)
        for fc in self.shared_fcs: x = F.relu(fc(x))
        return self.fc_cls(x), self.fc_reg(x)


class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(C, C, 3, padding=1)


class MaskHead(nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([Conv() for _ in range(4)])
        self.upsample, self.conv_logits = nn.ConvTranspose2d(C, C, 2, stride=2), nn.Conv2d(C, CLASSES, 1)

    def forward(self, x):
        for c in self.convs: x = F.relu(c.conv(x))
        return self.conv_logits(F.relu(self.upsample(x)))


class Detector(nn.Module):
    def __init__(self):
        super().__init__()
        sizes = ([8, 8, 16, 16], [1, 1, 1, 1], [1, 1, 2, 2], [2, 2, 2, 2], [1, 1, 0, 0], [0, 0, 0, 0])
        self.backbone, self.neck, self.rpn_head = Backbone(PPMA(*sizes), sizes[0]), FPN(sizes[0], C, extra=1), Rpn()
        self.roi_head = nn.Module()
        self.roi_head.bbox_head, self.roi_head.mask_head = BoxHead(), MaskHead()


if __name__ == "__main__":
    torch.set_num_threads(1)
    net = Detector()
    net.load_state_dict({k: v if k.endswith(".angle") else formula(k, tuple(v.shape)).to(v.dtype) for k, v in net.state_dict().items()})
    torch.save({"meta": {"mmdet_version": "2.28.2", "CLASSES": ["a", "b", "c"]}, "state_dict": net.half().state_dict()}, "detector_mm.pth")
    net = net.float().double().eval()
    last, out = lambda x: x.permute(0, 2, 3, 1), {}  # stored channels last
    with torch.no_grad():
        for i, level in enumerate(net.neck(net.backbone(image("detector.input", 1, 3, 64, 96)))):
            scores, deltas = net.rpn_head(level)
            out[f"scores.{i}"], out[f"deltas.{i}"] = last(scores), last(deltas)
        out["box.cls"], out["box.reg"] = net.roi_head.bbox_head(image("box.input", 2, C, 7, 7))
        out["mask"] = last(net.roi_head.mask_head(image("mask.input", 2, C, 14, 14)))
    write("detector_mm.safetensors", out)
