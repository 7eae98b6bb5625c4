#!/usr/bin/env python3
"""Makes heads.safetensors and segmentor_mm.pth: what PyTorch says of the heads, float64 stored as float32.

Weights and maps by formula (README.md), so only outputs are stored. Needs PyTorch. Run in this folder:  python make_heads.py
"""
import json, struct
import torch
from torch import nn
from ppma_torch import PPMA, formula, unit
from upernet_torch import FCNHead, FPNHead, FPN, UPerHead, Segmentor

WIDTHS, SIZES = (4, 5, 6, 7), ((13, 14), (7, 7), (4, 4), (2, 2))


def fill(module, prefix):
    """The formula's weights, under the published names with a prefix."""
    module.double().load_state_dict({k: formula(prefix + k, tuple(v.shape)).to(v.dtype) for k, v in module.state_dict().items()})
    return module


def image(name, *shape):
    n = torch.Size(shape).numel()
    return ((2 * unit(name, n) - 1) * 1.5).float().double().view(shape)


def write(path, tensors):
    head, data = {}, b""
    for k, t in tensors.items():
        raw = t.detach().float().contiguous().numpy().tobytes()
        head[k] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(head).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


if __name__ == "__main__":
    torch.set_num_threads(1)
    maps = [image(f"map{i}", 2, c, h, w) for i, (c, (h, w)) in enumerate(zip(WIDTHS, SIZES))]
    last = lambda x: x.permute(0, 2, 3, 1)  # stored channels last
    out = {}
    heads = {"upernet": fill(UPerHead(WIDTHS, 8, 3, dropout=0), "upernet."), "fcn": fill(FCNHead(6, 8, 3, dropout=0), "fcn."),
             "fpn": fill(FPN(WIDTHS, 8, extra=1), "fpn."), "semantic_fpn": fill(FPNHead((8,) * 4, 6, 3, dropout=0), "semantic_fpn.")}
    for training in (False, True):
        for name, head in heads.items():
            if training and name == "fpn": continue  # nothing in it knows of training
            head.train(training)
            x = [m.clone() for m in maps]
            if name == "fcn": y = head(x[2])
            elif name == "semantic_fpn": y = head([image(f"level{i}", 2, 8, h, w) for i, (h, w) in enumerate(((16, 12), (8, 6), (4, 3), (2, 2)))])
            else: y = head(x)
            for i, level in enumerate(y if isinstance(y, (list, tuple)) else [y]):
                out[f"{name}.{'train' if training else 'eval'}.{i}"] = last(level)
    # A whole network as OpenMMLab saves one.
    sizes = ([8, 8, 16, 16], [1, 1, 1, 1], [1, 1, 2, 2], [2, 2, 2, 2], [1, 1, 0, 0], [0, 0, 0, 0])
    net = Segmentor(PPMA(*sizes), sizes[0], 8, 3, auxiliary_channels=8, dropout=0)
    net.load_state_dict({k: v if k.endswith(".angle") else formula(k, tuple(v.shape)).to(v.dtype) for k, v in net.state_dict().items()})
    torch.save({"meta": {"mmseg_version": "0.30.0", "CLASSES": ["a", "b", "c"]}, "state_dict": net.half().state_dict()}, "segmentor_mm.pth")
    net = net.float().double().eval()
    with torch.no_grad():
        out["segmentor.eval"] = last(net(image("segmentor.input", 1, 3, 64, 48)))
    write("heads.safetensors", out)
