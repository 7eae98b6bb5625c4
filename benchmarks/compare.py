#!/usr/bin/env python3
"""Races `ppma bench` against the same network in PyTorch, ONNX Runtime and OpenVINO, side by side in one run, and prints
the table of README.md.

  python benchmarks/compare.py [--threads 2] [--rounds 3] [--rows infer-1,train-8] [--peers eager,onnxruntime] [--tool build/release/ppma]

Needs torch and numpy; ONNX Runtime (and onnx) and OpenVINO join where Python finds them. First checks that all compute the
same: PyTorch's random weights go through a .pth file into `ppma run`, with the mask and without, and the logits must agree
to 1e-5, with weights in bf16 to 2e-2; a runtime says how far it is from PyTorch in each race. Then, for each row, `rounds` times, each in turn. Times are
medians over the rounds of each process's own median; memory is the peak resident size of the process.
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
    """One image through PPMA-T in both: exits where the logits differ."""
    import numpy, torch
    sys.path.insert(0, here)
    import peer as reference
    torch.manual_seed(1)
    model = reference.make("tiny", mask=mask).eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        want = model(x).numpy()
    with tempfile.TemporaryDirectory() as folder:
        file = lambda name: os.path.join(folder, name)
        torch.save(reference.weights(model, mask), file("weights.pth"))
        with open(file("config.json"), "w") as f:
            json.dump({"model": "ppma_tiny", "mask": mask}, f)
        head = json.dumps({"input": {"dtype": "F32", "shape": list(x.shape), "data_offsets": [0, x.numel() * 4]}}).encode()
        with open(file("in.safetensors"), "wb") as f:
            f.write(len(head).to_bytes(8, "little") + head + x.numpy().tobytes())
        for dtype, bound in ("f32", 1e-5), ("bf16", 2e-2):
            subprocess.run([a.tool, "run", "--config", file("config.json"), "--weights", file("weights.pth"), "--input",
                            file("in.safetensors"), "--output", file("out.safetensors"), "--dtype", dtype], check=True,
                           stdout=subprocess.DEVNULL)
            got, _ = reference.load(file("out.safetensors"))
            error = float(numpy.linalg.norm(got["logits"].numpy() - want) / numpy.linalg.norm(want))
            print(f"mask {mask}, {dtype}, same weights, same image: logits differ by {error:.1e} (relative 2-norm)", flush=True)
            if not error < bound:
                sys.exit("the two do not compute the same; no race")


# What is raced: model, image size, batch, training, mask.
rows = {
    "infer-1": ("tiny", 224, 1, False, "polyline"), "infer-8": ("tiny", 224, 8, False, "polyline"),
    "infer-none-8": ("tiny", 224, 8, False, "none"), "infer-512": ("tiny", 512, 1, False, "polyline"),
    "small-8": ("small", 224, 8, False, "polyline"), "base-8": ("base", 224, 8, False, "polyline"),
    "train-1": ("tiny", 224, 1, True, "polyline"), "train-8": ("tiny", 224, 8, True, "polyline"),
    "train-none-8": ("tiny", 224, 8, True, "none"),
}
# Ours in bf16, against ours in f32.
narrow_rows = {"bf16-1": ("tiny", 1), "bf16-8": ("tiny", 8), "bf16-base-8": ("base", 8)}
peers = {
    "eager": [], "channels-last": ["--channels-last"], "compile": ["--compile"],
    "onnxruntime": ["--runtime", "onnxruntime"], "openvino": ["--runtime", "openvino"],
}


def installed(name):
    import importlib.util
    needs = {"onnxruntime": ["onnxruntime", "onnx"], "openvino": ["openvino", "onnx"]}.get(name, ["torch"])
    return all(importlib.util.find_spec(n) for n in needs)


def race(a, name):
    model, size, batch, train, mask = rows[name]
    shared = ["--batch", str(batch), "--size", str(size), "--threads", str(a.threads), "--mask", mask,
              "--repeat", str(a.repeat)] + ["--train"] * train
    ours = [a.tool, "bench", "--json", "--model", "ppma_" + model] + shared
    among = [p for p in a.peers if not (train and p in ("onnxruntime", "openvino"))]
    if not among:
        return print(f"(no row {name}: the peers do not train)", file=sys.stderr)
    results = {k: [] for k in ["ppma"] + among}
    for _ in range(a.rounds):
        for peer_name in among:
            result = run([sys.executable, peer, "--model", model] + shared + peers[peer_name])
            if result[0].get("error", 0) > 1e-5:
                sys.exit(f"{peer_name} is {result[0]['error']:.1e} from PyTorch; no race")
            results[peer_name].append(result)
        results["ppma"].append(run(ours))
    ms = {k: statistics.median(r[0]["ms"] for r in v) for k, v in results.items()}
    mib = {k: statistics.median(r[0].get("peak_rss_MiB", r[1]) for r in v) for k, v in results.items()}
    best = min(among, key=lambda k: ms[k])
    floor = statistics.median(r[0].get("share_of_floor", 0) for r in results["ppma"])
    cells = [f"{ms['ppma']:.1f}", f"{100 * floor:.0f} %"] + [f"{ms[k]:.1f}" if k in ms else "-" for k in a.peers]
    cells += [f"**{ms[best] / ms['ppma']:.2f}** ({best})", f"{mib['ppma']:.0f}", " / ".join(f"{mib[k]:.0f}" for k in among)]
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


def race_bf16(a, name):
    model, batch = narrow_rows[name]
    ours = [a.tool, "bench", "--json", "--model", "ppma_" + model, "--batch", str(batch), "--threads", str(a.threads),
            "--repeat", str(a.repeat)]
    results = {dtype: [] for dtype in ("f32", "bf16")}
    for _ in range(a.rounds):
        for dtype, so_far in results.items():
            so_far.append(run(ours + ["--dtype", dtype])[0])
    middle = lambda dtype, key: statistics.median(r[key] for r in results[dtype])
    ms, tensors, process = ([middle(d, key) for d in results] for key in ("ms", "peak_tensors_MiB", "peak_rss_MiB"))
    print(f"{name}: f32 {ms[0]:.1f} ms, bf16 {ms[1]:.1f} ms, {ms[0] / ms[1]:.2f} times as fast; tensors {tensors[0]:.0f} and "
          f"{tensors[1]:.0f} MiB, the process {process[0]:.0f} and {process[1]:.0f}", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--repeat", type=int, default=9)
    all_rows = list(rows) + list(narrow_rows)
    p.add_argument("--rows", default=",".join(all_rows), help="of " + ", ".join(all_rows))
    p.add_argument("--peers", default=",".join(peers), help="of " + ", ".join(peers) + " (compile: minutes a process)")
    p.add_argument("--tool", default=os.path.join(here, "..", "build", "release", "ppma"))
    p.add_argument("--check", action="store_true", help="only check that ppma and PyTorch compute the same")
    a = p.parse_args()
    unknown = [w for w in a.rows.split(",") if w not in all_rows] + [w for w in a.peers.split(",") if w not in peers]
    if unknown:
        p.error(f"{unknown[0]} is no row and no peer")
    a.peers = a.peers.split(",")
    for missing in [w for w in a.peers if not installed(w)]:
        print(f"without {missing}: Python does not find it", file=sys.stderr)
        a.peers.remove(missing)
    if a.check:
        for mask in ("polyline", "none"):
            check(a, mask)
        return print(flush=True)
    # In a process of its own: a child's peak memory counts what its parent held when it was started.
    subprocess.run([sys.executable, os.path.abspath(__file__), "--check", "--tool", a.tool], check=True)
    version = subprocess.run([a.tool, "--version"], capture_output=True, text=True).stdout.split("\n")
    print("\n".join(line for line in version if line), flush=True)
    print("| row | ppma ms | of its floor | " + " | ".join(a.peers) + " | best peer / ppma | ppma MiB | peers MiB |")
    print("| --- " * (6 + len(a.peers)) + "|", flush=True)
    for name in a.rows.split(","):
        race(a, name) if name in rows else race_bf16(a, name)


main()
