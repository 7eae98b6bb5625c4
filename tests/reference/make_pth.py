#!/usr/bin/env python3
"""Writes the small checkpoints of pth/ that the reader of .pth files is tested on.

    python make_pth.py NAME PROTOCOL...      once per PyTorch version: torch113 2 (PyTorch 1.13.1), torch215 2 3 4 5 (2.15)

Every value is a formula of its position, so that the tests need no second copy of the data: element i (row-major) of
`ramp` is i; everything else is said at its line.
"""
import argparse
import collections
import os
import sys

import numpy as np
import torch

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "pth")


def tensors():
    ramp = torch.arange(24, dtype=torch.float32)
    shared = torch.arange(10, dtype=torch.float64)
    d = collections.OrderedDict()
    d["ramp"] = ramp.reshape(2, 3, 4)
    d["transposed"] = torch.arange(6, dtype=torch.float32).reshape(2, 3).t()  # (3,2), strides (1,3)
    d["channels_last"] = ramp.reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)
    d["tail"] = shared[4:]  # offset 4 in a storage of 10
    d["odd"] = shared[1::2]  # offset 1, stride 2, the same storage
    d["expanded"] = torch.tensor([1.0, 2.0]).unsqueeze(1).expand(2, 5)  # stride 0
    d["tied"] = d["ramp"]
    d["parameter"] = torch.nn.Parameter(torch.full((2, 2), 0.5))
    d["scalar"] = torch.tensor(7, dtype=torch.int64)
    d["empty"] = torch.zeros(0, 3)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
                  torch.int8, torch.uint8):
        d[str(dtype)[6:]] = torch.arange(5).to(dtype)
    for name in ("uint16", "uint32", "uint64"):
        if hasattr(torch, name) and hasattr(torch, "float8_e4m3fn"):
            d[name] = torch.arange(5).to(getattr(torch, name))
    d["bool"] = torch.tensor([True, False, True])
    return d


def rest():
    """What a training checkpoint holds beside weights; classes that a restricted reader does not know among it."""
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.25)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    return {
        "optimizer": optimizer.state_dict(),
        "epoch": 299,
        "max_accuracy": np.float64(82.5),
        "array": np.arange(3, dtype=np.int32),
        "args": argparse.Namespace(model="mini", lr=1e-3, sizes=[224, 256], betas=(0.9, 0.999), resume=None),
        "counter": collections.Counter("aab"),
        "default": collections.defaultdict(list, {"a": [1]}),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "size": torch.Size([2, 3]),
        "set": {1},
        "bytes": b"\x00\xff",
        "bytearray": bytearray(b"ab"),
        "big": 2**100,
        "negative": -(2**40),
        "text": "caf\u00e9 \U0001f600",
        "complex": 1 + 2j,
        "slice": slice(1, 2),
        "complex_tensor": torch.zeros(2, dtype=torch.complex64),
    }


def main():
    name, protocols = sys.argv[1], [int(p) for p in sys.argv[2:]]
    torch.manual_seed(0)
    for p in protocols:
        torch.save({"model": tensors(), **rest()}, os.path.join(FOLDER, f"{name}_p{p}.pth"), pickle_protocol=p)
    torch.save(collections.OrderedDict(("module." + k, v) for k, v in torch.nn.Linear(3, 2).state_dict().items()),
               os.path.join(FOLDER, f"{name}_ddp.pth"))
    torch.save(torch.nn.Linear(3, 2), os.path.join(FOLDER, f"{name}_module.pth"))
    torch.save({"a": torch.ones(2)}, os.path.join(FOLDER, f"{name}_legacy.pth"), _use_new_zipfile_serialization=False)
    if hasattr(torch.serialization, "set_crc32_options"):
        torch.serialization.set_crc32_options(False)
        torch.save({"a": torch.arange(3.0)}, os.path.join(FOLDER, f"{name}_nocrc.pth"))


if __name__ == "__main__":
    main()
