#!/usr/bin/env python3
"""Races `ppma bench` against the same network in PyTorch, side by side in one run, and prints the table of README.md.

  python benchmarks/compare.py [--model tiny] [--size 224] [--threads 2] [--rounds 5] [--compile] [--tool build/release/ppma]

Needs torch and numpy. First checks that both compute the same, with the mask and without: PyTorch's random weights go
through a .pth file into `ppma run`, and the logits must agree to 1e-5. Then, for each row, `rounds` times: PyTorch, ppma, PyTorch, ppma ...
Times are medians over the rounds of each process's own median; memory is the peak resident size of the process, and
in brackets what it is above a process that only loaded the library.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile

here = os.path.dirname(os.path.abspath(__file__))
peer = os.path.join(here, "peer.py")


def run(command):
    """The JSON that a command prints, and its peak resident MiB."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS", "OMP_", "GOMP_"))}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"failed: {' '.join(command)}")
    return (json.loads(out.strip().splitlines()[-1]) if out.strip() else {}), usage.ru_maxrss / 1024


def check(a, mask):
    import numpy, torch
    sys.path.insert(0, here)
    import peer as reference
    torch.manual_seed(1)
    model = reference.make(a.model, mask=mask).eval()
    x = torch.randn(1, 3, a.size, a.size)
    with torch.no_grad():
        want = model(x).numpy()
    with tempfile.TemporaryDirectory() as folder:
        file = lambda name: os.path.join(folder, name)
        torch.save(reference.weights(model, mask), file("weights.pth"))
        with open(file("config.json"), "w") as f:
            json.dump({"model": "ppma_" + a.model, "mask": mask}, f)
        head = json.dumps({"input": {"dtype": "F32", "shape": list(x.shape), "data_offsets": [0, x.numel() * 4]}}).encode()
        with open(file("in.safetensors"), "wb") as f:
            f.write(len(head).to_bytes(8, "little") + head + x.numpy().tobytes())
        subprocess.run([a.tool, "run", "--config", file("config.json"), "--weights", file("weights.pth"), "--input",
                        file("in.safetensors"), "--output", file("out.safetensors")], check=True, stdout=subprocess.DEVNULL)
        got, _ = reference.load(file("out.safetensors"))
    error = float(numpy.linalg.norm(got["logits"].numpy() - want) / numpy.linalg.norm(want))
    print(f"mask {mask}, same weights, same image: logits differ by {error:.1e} (relative 2-norm)", flush=True)
    if not error < 1e-5:
        sys.exit("the two do not compute the same; no race")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", default="tiny")
    p.add_argument("--size", type=int, default=224)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--compile", action="store_true", help="race torch.compile too (minutes a process)")
    p.add_argument("--tool", default=os.path.join(here, "..", "build", "release", "ppma"))
    p.add_argument("--check", action="store_true", help="only check that both compute the same")
    a = p.parse_args()
    if a.check:
        for mask in ("polyline", "none"):
            check(a, mask)
        return print(flush=True)
    # In a process of its own: a child's peak memory counts what its parent held when it was started.
    subprocess.run([sys.executable, os.path.abspath(__file__), "--check", "--model", a.model, "--size", str(a.size), "--tool", a.tool], check=True)
    torch_base = run([sys.executable, "-c", "import torch"])[1]
    print("| batch | mode | mask | ppma ms | PyTorch eager ms | ratio | compiled ms | ratio | ppma MiB | PyTorch MiB (above import) | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for batch, train, mask in [(1, 0, "polyline"), (8, 0, "polyline"), (8, 0, "none"), (1, 1, "polyline"), (8, 1, "polyline"), (8, 1, "none")]:
        shared = ["--batch", str(batch), "--size", str(a.size), "--threads", str(a.threads), "--mask", mask] + ["--train"] * train
        ours = [a.tool, "bench", "--model", "ppma_" + a.model, "--json"] + shared
        theirs = [sys.executable, peer, "--model", a.model] + shared
        rows = {"ours": [], "eager": [], "compiled": []}
        for _ in range(a.rounds):
            rows["eager"].append(run(theirs))
            rows["ours"].append(run(ours))
            if a.compile:
                rows["compiled"].append(run(theirs + ["--compile"]))
        ms = {k: statistics.median(r[0]["ms"] for r in v) if v else None for k, v in rows.items()}
        mib = {k: statistics.median(r[1] for r in v) if v else None for k, v in rows.items()}
        compiled = f"{ms['compiled']:.1f} | {ms['compiled'] / ms['ours']:.2f}" if a.compile else "- | -"
        above = mib["eager"] - torch_base
        print(f"| {batch} | {'training step' if train else 'inference'} | {mask} | {ms['ours']:.1f} | {ms['eager']:.1f} | "
              f"{ms['eager'] / ms['ours']:.2f} | {compiled} | {mib['ours']:.0f} | {mib['eager']:.0f} ({above:.0f}) | "
              f"{mib['ours'] / mib['eager']:.2f} ({mib['ours'] / above:.2f}) |", flush=True)


main()
