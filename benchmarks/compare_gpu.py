#!/usr/bin/env python3
"""Races `ppma bench --device cuda` against the same network in PyTorch on one GPU, side by side in one run.

  python benchmarks/compare_gpu.py [--tool build/cuda/ppma] [--rows infer,train,latency,mask] [--compile] [--repeat 20]

Needs torch with CUDA. First the check: the same random weights and images must give the same logits, in f32 to 1e-5 and
in bf16 to 5e-2 of PyTorch's own f32. Then each row: PyTorch eager, torch.compile (with --compile), ppma. Times are
medians of event-timed runs inside each process; memory is the allocator's peak.
"""
import argparse, json, os, subprocess, sys, tempfile

here = os.path.dirname(os.path.abspath(__file__))
peer = os.path.join(here, "..", "tests", "reference", "ppma_torch.py")
sys.path.insert(0, os.path.dirname(peer))


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        return {"error": (done.stderr or done.stdout).strip().splitlines()[-1:]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def check(a):
    import numpy, torch
    import ppma_torch
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    model = ppma_torch.make("tiny").eval().cuda()
    x = torch.randn(4, 3, 224, 224)
    with torch.no_grad():
        want = model(x.cuda()).cpu().numpy()
    with tempfile.TemporaryDirectory() as folder:
        file = lambda name: os.path.join(folder, name)
        torch.save({k: v.cpu() for k, v in model.state_dict().items()}, file("weights.pth"))
        with open(file("config.json"), "w") as f:
            json.dump({"model": "ppma_tiny"}, f)
        head = json.dumps({"input": {"dtype": "F32", "shape": list(x.shape), "data_offsets": [0, x.numel() * 4]}}).encode()
        with open(file("in.safetensors"), "wb") as f:
            f.write(len(head).to_bytes(8, "little") + head + x.numpy().tobytes())
        for dtype, limit in [("f32", 1e-5), ("tf32", 1e-2), ("bf16", 5e-2)]:
            subprocess.run([a.tool, "run", "--config", file("config.json"), "--weights", file("weights.pth"), "--input",
                            file("in.safetensors"), "--output", file("out.safetensors"), "--device", "cuda", "--dtype", dtype], check=True)
            got, _ = ppma_torch.load(file("out.safetensors"))
            error = float(numpy.linalg.norm(got["logits"].numpy() - want) / numpy.linalg.norm(want))
            print(f"{dtype}: logits differ from PyTorch's f32 by {error:.1e} (relative 2-norm)")
            if not error < limit:
                sys.exit("the two do not compute the same; no race")
    print(torch.cuda.get_device_name(), "PyTorch", torch.__version__, "\n", flush=True)


ROWS = {
    "infer": [("tiny", 128, 224, "bf16", 0, "polyline")],
    "train": [("tiny", 128, 224, "bf16", 1, "polyline")],
    "latency": [("tiny", 1, 224, "bf16", 0, "polyline"), ("tiny", 1, 224, "tf32", 0, "polyline")],
    "mask": [("tiny", 128, 224, "bf16", 0, "none"), ("tiny", 128, 224, "bf16", 1, "none")],
    "large": [("small", 128, 224, "bf16", 0, "polyline"), ("base", 128, 224, "bf16", 0, "polyline")],
    "wide": [("tiny", 1, 1024, "bf16", 1, "polyline")],
}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tool", default=os.path.join(here, "..", "build", "cuda", "ppma"))
    p.add_argument("--rows", default="infer,train,latency,mask")
    p.add_argument("--repeat", type=int, default=20)
    p.add_argument("--compile", action="store_true", help="race torch.compile too (minutes)")
    p.add_argument("--alone", action="store_true", help="ppma only: no PyTorch rows")
    p.add_argument("--no-check", action="store_true")
    a = p.parse_args()
    if not a.no_check:
        check(a)
    torch_dtype = {"bf16": "bfloat16", "tf32": "tf32", "f32": "float32"}
    print("| model | batch | size | dtype | mode | mask | ppma ms | img/s | MiB | eager ms | img/s | MiB | compiled ms | img/s | MiB |")
    print("| --- " * 15 + "|")
    for row in [r for name in a.rows.split(",") for r in ROWS[name]]:
        model, batch, size, dtype, train, mask = row
        shared = ["--batch", str(batch), "--size", str(size), "--mask", mask] + ["--train"] * train
        theirs = [sys.executable, peer, "bench", "--device", "cuda", "--model", model, "--dtype", torch_dtype[dtype], "--channels-last"] + shared
        cells = []
        results = [run([a.tool, "bench", "--device", "cuda", "--dtype", dtype, "--model", "ppma_" + model, "--repeat", str(a.repeat), "--json"] + shared)]
        if not a.alone:
            results.append(run(theirs))
            if a.compile:
                results.append(run(theirs + ["--compile"]))
        for r in results:
            if "error" in r:
                cells.append(f"{r['error']} | - | -")
            else:
                memory = r.get("peak_tensors_MiB", r.get("peak_MiB", 0))
                cells.append(f"{r['ms']:.3f} | {1000 * batch / r['ms']:.0f} | {memory:.0f}" + ("" if r.get("graph", True) else " (no graph)"))
        print(f"| {model} | {batch} | {size} | {dtype} | {'training step' if train else 'inference'} | {mask} | " + " | ".join(cells) + " |", flush=True)


main()
