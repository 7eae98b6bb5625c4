#!/usr/bin/env python3
"""Races `ppma bench --device cuda` against the same network in PyTorch on one GPU, side by side in one run.

  python benchmarks/compare_gpu.py [--tool build/cuda/ppma] [--rows infer,train,latency,mask] [--peers eager,compiled] [--repeat 20]
  python benchmarks/compare_gpu.py --rows attention --attention-bench build/attention_cuda_bench [--peers eager,compiled]

Needs torch with CUDA. First the check, with the mask and without: the same random weights and images must give the same
logits, in f32 to 1e-5 and in bf16 to 5e-2 of PyTorch's own f32. Then each row: ppma, and the peers (eager PyTorch, torch.compile, which takes
minutes; --peers with nothing behind it: none), one after the other. Times are medians of event-timed runs inside each process; memory is the
allocator's peak.
"""
import argparse, json, os, subprocess, sys, tempfile

here = os.path.dirname(os.path.abspath(__file__))
peer = os.path.join(here, "peer.py")
sys.path.insert(0, os.path.join(here, "..", "tests", "reference"))


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        return {"error": (done.stderr or done.stdout).strip().splitlines()[-1:]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def check(a, mask):
    import numpy, torch
    sys.path.insert(0, here)
    import peer as reference
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model = reference.make("tiny", mask=mask).eval().cuda()
    x = torch.randn(4, 3, 224, 224)
    with torch.no_grad():
        want = model(x.cuda()).cpu().numpy()
    with tempfile.TemporaryDirectory() as folder:
        file = lambda name: os.path.join(folder, name)
        torch.save(reference.weights(model, mask), file("weights.pth"))
        with open(file("config.json"), "w") as f:
            json.dump({"model": "ppma_tiny", "mask": mask}, f)
        head = json.dumps({"input": {"dtype": "F32", "shape": list(x.shape), "data_offsets": [0, x.numel() * 4]}}).encode()
        with open(file("in.safetensors"), "wb") as f:
            f.write(len(head).to_bytes(8, "little") + head + x.numpy().tobytes())
        for dtype, limit in [("f32", 1e-5), ("tf32", 1e-2), ("bf16", 5e-2)]:
            subprocess.run([a.tool, "run", "--config", file("config.json"), "--weights", file("weights.pth"), "--input",
                            file("in.safetensors"), "--output", file("out.safetensors"), "--device", "cuda", "--dtype", dtype], check=True)
            got, _ = reference.load(file("out.safetensors"))
            error = float(numpy.linalg.norm(got["logits"].numpy() - want) / numpy.linalg.norm(want))
            print(f"mask {mask}, {dtype}: logits differ from PyTorch's f32 by {error:.1e} (relative 2-norm)")
            if not error < limit:
                sys.exit("the two do not compute the same; no race")


ROWS = {
    "infer": [("tiny", 128, 224, "bf16", 0, "polyline")],
    "train": [("tiny", 128, 224, "bf16", 1, "polyline")],
    "latency": [("tiny", 1, 224, "bf16", 0, "polyline"), ("tiny", 1, 224, "tf32", 0, "polyline")],
    "mask": [("tiny", 128, 224, "bf16", 0, "none"), ("tiny", 128, 224, "bf16", 1, "none")],
    "train-large": [("small", 64, 224, "bf16", 1, "polyline"), ("base", 64, 224, "bf16", 1, "polyline")],
    "large": [("small", 128, 224, "bf16", 0, "polyline"), ("base", 128, 224, "bf16", 0, "polyline")],
    "wide": [("tiny", 1, 1024, "bf16", 1, "polyline")],
}


def whole_attention(q, k, v, la, lb):
    """The masked attention of ppma_torch.Attention: q, k, v (B,heads,H,W,d), log decays (B,heads,H,W)."""
    import ppma_torch
    b, n, h, w, d = q.shape
    s = q.flatten(2, 3) @ k.flatten(2, 3).transpose(-1, -2)
    rows, cols = ppma_torch.segment_sums(la), ppma_torch.segment_sums(lb.transpose(2, 3))
    m = (rows[:, :, :, :, None, :] + cols.permute(0, 1, 3, 4, 2)[:, :, :, None, :, :]).reshape(b, n, h * w, h * w)
    p = 0.5 * ((s + m).softmax(-1) + (s + m.transpose(-1, -2)).softmax(-1))
    return (p.to(v.dtype) @ v.flatten(2, 3)).view(b, n, h, w, d)


def attention_rows(a):
    """Whole masked attention alone, in one process each; ours is checked against the CPU by the GPU tests."""
    import torch
    ours = [json.loads(l) for l in subprocess.run([a.attention_bench], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines() if l.startswith("{")]

    def median(f):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        ms = []
        for i in range(14):
            begin.record(); f(); end.record(); end.synchronize()
            ms.append(begin.elapsed_time(end))
        return sorted(ms[4:])[5]

    def times(f, inputs):
        with torch.no_grad():
            forward = median(lambda: f(*inputs))
        y = f(*inputs)
        dy = torch.randn_like(y)
        def both():
            for t in inputs: t.grad = None
            f(*inputs).backward(dy)
        return f"{forward:.3f} / {median(both):.3f}"

    print("| whole attention, bf16 | ppma masked, ms forward / both | ppma unmasked | eager masked | compiled masked | unmasked flash (SDPA) |\n| --- | --- | --- | --- | --- | --- |")
    sdpa = lambda q, k, v, *_: torch.nn.functional.scaled_dot_product_attention(q.flatten(2, 3), k.flatten(2, 3), v.flatten(2, 3), scale=1.0)
    for o in ours:
        if o["kind"] != "whole" or not o["masked"] or o["dtype"] != "bf16":
            continue
        plain = next(u for u in ours if not u["masked"] and all(u[key] == o[key] for key in ("kind", "batch", "tokens", "heads", "head_width")))
        side = int(o["tokens"] ** 0.5)
        shape = (o["batch"], o["heads"], side, side, o["head_width"])
        inputs = [torch.randn(shape, device="cuda", dtype=torch.bfloat16).mul_(c).requires_grad_() for c in (1, o["head_width"] ** -0.5, 1)]
        inputs += [(-0.1 * torch.randn(shape[:4], device="cuda").abs()).requires_grad_() for _ in range(2)]
        cells = [f"{x['forward_ms']:.3f} / {x['forward_backward_ms']:.3f}" for x in (o, plain)]
        cells.append(times(whole_attention, inputs))
        torch._dynamo.reset()  # or it gives up compiling after a few shapes
        cells.append(times(torch.compile(whole_attention, dynamic=False), inputs) if "compiled" in a.peers else "-")
        cells.append(times(sdpa, inputs[:3]))
        print(f"| B{o['batch']} N={o['tokens']}, {o['heads']} heads of {o['head_width']} | " + " | ".join(cells) + " |", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tool", default=os.path.join(here, "..", "build", "cuda", "ppma"))
    p.add_argument("--rows", default="infer,train,latency,mask")
    p.add_argument("--repeat", type=int, default=20)
    p.add_argument("--peers", nargs="?", const="", default="eager", help="eager,compiled")
    p.add_argument("--no-check", action="store_true")
    p.add_argument("--attention-bench", default=os.path.join(here, "..", "build", "attention_cuda_bench"))
    a = p.parse_args()
    a.peers = [name for name in a.peers.split(",") if name]
    if not set(a.peers) <= {"eager", "compiled"}: p.error(f"--peers {','.join(a.peers)}: eager,compiled are known")
    if a.rows == "attention":
        return attention_rows(a)
    if not a.no_check:
        for mask in ("polyline", "none"):
            check(a, mask)
        import torch
        print(torch.cuda.get_device_name(), "PyTorch", torch.__version__, "\n", flush=True)
    torch_dtype = {"bf16": "bfloat16", "tf32": "tf32", "f32": "float32"}
    print("| model | batch | size | dtype | mode | mask |" + "".join(f" {name} ms | img/s | MiB |" for name in ["ppma"] + a.peers))
    print("| --- " * (9 + 3 * len(a.peers)) + "|")
    for row in [r for name in a.rows.split(",") for r in ROWS[name]]:
        model, batch, size, dtype, train, mask = row
        shared = ["--batch", str(batch), "--size", str(size), "--mask", mask] + ["--train"] * train
        theirs = [sys.executable, peer, "--device", "cuda", "--model", model, "--dtype", torch_dtype[dtype], "--channels-last"] + shared
        cells = []
        results = [run([a.tool, "bench", "--device", "cuda", "--dtype", dtype, "--model", "ppma_" + model, "--repeat", str(a.repeat), "--json"] + shared)]
        results += [run(theirs + ["--compile"] * (name == "compiled")) for name in a.peers]
        for r in results:
            if "error" in r:
                cells.append(f"{r['error']} | - | -")
            else:
                memory = r.get("peak_tensors_MiB", r.get("peak_MiB", 0))
                cells.append(f"{r['ms']:.3f} | {1000 * batch / r['ms']:.0f} | {memory:.0f}" + ("" if r.get("graph", True) else " (no graph)"))
        print(f"| {model} | {batch} | {size} | {dtype} | {'training step' if train else 'inference'} | {mask} | " + " | ".join(cells) + " |", flush=True)


main()
