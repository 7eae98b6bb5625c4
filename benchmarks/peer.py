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


def runtime(a):
    """Inference by ONNX Runtime or OpenVINO of the network exported from PyTorch. Prints the time of a batch, and how far
    the result is from PyTorch's (relative 2-norm)."""
    import json, tempfile, time, warnings
    import numpy, torch
    warnings.simplefilter("ignore")
    torch.manual_seed(1)
    torch.set_num_threads(a.threads)
    model, x = make(a.model, mask=a.mask).eval(), torch.randn(a.batch, 3, a.size, a.size)
    with torch.no_grad():
        want = model(x).numpy()
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "network.onnx")
        torch.onnx.export(model, (x,), file, opset_version=18, dynamo=False, input_names=["x"], output_names=["logits"])
        images = x.numpy()
        if a.runtime == "onnxruntime":
            import onnxruntime
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = a.threads
            session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            version, forward = onnxruntime.__version__, lambda: session.run(None, {"x": images})[0]
        else:
            import openvino
            # its own choice would be bf16 where the processor has it
            network = openvino.Core().compile_model(file, "CPU", {"INFERENCE_NUM_THREADS": a.threads, "PERFORMANCE_HINT": "LATENCY",
                                                                  "INFERENCE_PRECISION_HINT": "f32"})
            version, forward = openvino.__version__.split("-")[0], lambda: network(images)[0]
    error = float(numpy.linalg.norm(forward() - want) / numpy.linalg.norm(want))
    del model
    times = []
    for i in range(a.repeat + 3):
        t = time.perf_counter(); forward(); times.append(time.perf_counter() - t)
    ms = sorted(times[3:])[a.repeat // 2] * 1000
    print(json.dumps({"peer": f"{a.runtime} {version}", "batch": a.batch, "ms": round(ms, 3), "error": error}))


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--device", default="cpu"); p.add_argument("--model", default="tiny"); p.add_argument("--batch", type=int, default=8)
    p.add_argument("--size", type=int, default=224); p.add_argument("--threads", type=int, default=2); p.add_argument("--dtype", default="float32")
    p.add_argument("--compile", action="store_true"); p.add_argument("--train", action="store_true"); p.add_argument("--mask", default="polyline", choices=["polyline", "none"])
    p.add_argument("--channels-last", action="store_true"); p.add_argument("--repeat", type=int, default=10)
    p.add_argument("--runtime", default="torch", choices=["torch", "onnxruntime", "openvino"])
    a = p.parse_args()
    ppma_torch.bench(a) if a.runtime == "torch" else runtime(a)
