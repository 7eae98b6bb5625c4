"""Weights that ppma wrote, as Python's packages read them: check_weights.py pth|safetensors FOLDER. plain.pth is a state dict,
under.pth {"model": state dict}, plain.safetensors the same. Names, types, shapes and bits must be those of plain.pth; what was
read is written back, as back.pth or back.safetensors."""

import os
import sys
from collections import OrderedDict

import torch


def file(name):
    return os.path.join(sys.argv[2], name)


def bits(t):
    return (t.dtype, tuple(t.shape), t.flatten().view(torch.uint8).tolist() if t.numel() else [])


plain = torch.load(file("plain.pth"), weights_only=True)
if sys.argv[1] == "pth":
    under = torch.load(file("under.pth"), weights_only=True)
    assert type(plain) is OrderedDict and list(under) == ["model"] and type(under["model"]) is OrderedDict
    assert list(plain) == list(under["model"])
    for name, t in plain.items():
        assert bits(t) == bits(under["model"][name]) and t.is_contiguous() and not t.requires_grad, name
    layer = OrderedDict((k.removeprefix("fc."), t) for k, t in plain.items() if k.startswith("fc."))
    torch.nn.Linear(3, 2).load_state_dict(layer)
    torch.save(plain, file("back.pth"))
else:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    tensors = load_file(file("plain.safetensors"))
    assert sorted(tensors) == sorted(plain)
    for name, t in plain.items():
        assert bits(t) == bits(tensors[name]), name
    with safe_open(file("plain.safetensors"), "pt") as f:
        about = f.metadata()
    save_file(tensors, file("back.safetensors"), about)
