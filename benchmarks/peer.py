#!/usr/bin/env python3
"""The PyTorch network that compare.py and compare_gpu.py race against: tests/reference/ppma_torch.py, and without a mask
(--mask none) the function that ppma computes then.

  python benchmarks/peer.py [--device cpu|cuda] [--model tiny|small|base] [--mask polyline|none] ...   prints one line of JSON

Criss-cross attention averages two orders, columns of rows and rows of columns, so that the mask's paths V2H and H2V both
count. Without a mask ppma computes one: columns of rows. The reference always computes both, which is more work; here it
computes the one too.
"""
import argparse, os, sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "tests", "reference"))
import ppma_torch


class Attention(ppma_torch.Attention):
    def forward(self, x, sin, cos):
        if self.mask != "none" or not self.criss_cross:
            return super().forward(x, sin, cos)
        import torch
        b, h, w, c = x.shape
        n, d = self.heads, c // self.heads
        v = self.v_proj(x)
        lepe = self.lepe(v)
        split = lambda t: t.view(b, h, w, n, d).permute(0, 3, 1, 2, 4)  # (B, heads, H, W, d)
        turn = lambda t: t * cos + torch.stack((-t[..., 1::2], t[..., 0::2]), -1).flatten(-2) * sin
        across = lambda t: t.transpose(2, 3)
        q, k, v = turn(split(self.q_proj(x))), turn(split(self.k_proj(x) * d ** -0.5)), split(v)
        rows = (q @ k.transpose(-1, -2)).softmax(-1)                    # (B,n,H,W,W)
        columns = (across(q) @ across(k).transpose(-1, -2)).softmax(-1)  # (B,n,W,H,H)
        y = across(columns @ across(rows @ v))
        return self.out_proj(y.permute(0, 2, 3, 1, 4).flatten(-2) + lepe)


ppma_torch.Attention = Attention  # what its blocks are made of
make, load = ppma_torch.make, ppma_torch.load


def weights(model, mask):
    """The state dict as ppma loads it: without a mask there are no decays to learn."""
    return {k: v.cpu() for k, v in model.state_dict().items() if mask != "none" or ".path_embed." not in k}


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cpu"); p.add_argument("--model", default="tiny"); p.add_argument("--batch", type=int, default=8)
    p.add_argument("--size", type=int, default=224); p.add_argument("--threads", type=int, default=2); p.add_argument("--dtype", default="float32")
    p.add_argument("--compile", action="store_true"); p.add_argument("--train", action="store_true"); p.add_argument("--mask", default="polyline", choices=["polyline", "none"])
    p.add_argument("--channels-last", action="store_true"); p.add_argument("--repeat", type=int, default=10)
    ppma_torch.bench(p.parse_args())
