#!/usr/bin/env python3
"""Races the networks of docs/networks.md, `ppma bench` beside their PyTorch peers (tests/reference/networks), in one run.

  python benchmarks/compare_networks.py --tool build/release/ppma [--networks mambaout,vvt] [--train] [--compile]
                                        [--device cuda --dtype bf16 --batch 128] [--size 224] [--repeat 10] [--warm 600]

Needs torch and safetensors. That both compute the same is tests/networks' business (logits and every gradient). --compile also races
torch.compile: first all peers are compiled side by side into one cache, each in at most --warm seconds; what was not done by then is left
out, and says so. Then each is timed with nothing beside it: ours, the peer, ours again.
"""
import argparse, json, os, subprocess, sys, tempfile, time

here = os.path.dirname(os.path.abspath(__file__))
peers = os.path.join(here, "..", "tests", "reference", "networks")


def milliseconds(command, limit):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return f"not within {limit} s"
    if done.returncode != 0:
        return (done.stderr or done.stdout).strip().splitlines()[-1][:80]
    return json.loads(done.stdout.strip().splitlines()[-1])["ms"]


def warm(commands, seconds):
    """Which of the commands, all run at once, end well within so many seconds."""
    each = dict(os.environ, OMP_NUM_THREADS="1", TORCHINDUCTOR_COMPILE_THREADS=str(max(1, (os.cpu_count() or 1) // len(commands))))
    running = {key: subprocess.Popen(c, env=each, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for key, c in commands.items()}
    done, until = {}, time.monotonic() + seconds
    for key, process in running.items():
        try:
            done[key] = process.wait(timeout=max(0.1, until - time.monotonic())) == 0
        except subprocess.TimeoutExpired:
            process.kill()
            done[key] = False
    return done


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tool", default=os.path.join(here, "..", "build", "release", "ppma"))
    p.add_argument("--networks", default="mambaout,vmamba,spatial_mamba,biformer,vvt")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    p.add_argument("--dtype", choices=["f32", "tf32", "bf16"], default="f32")
    p.add_argument("--batch", type=int, default=2)
    p.add_argument("--size", type=int, default=224)
    p.add_argument("--repeat", type=int, default=10)
    p.add_argument("--train", action="store_true", help="a training step instead of inference")
    p.add_argument("--compile", action="store_true", help="race torch.compile too")
    p.add_argument("--warm", type=int, default=600, help="seconds for compiling all peers")
    a = p.parse_args()
    shared = ["--batch", str(a.batch), "--size", str(a.size), "--dtype", a.dtype, "--device", a.device] + ["--train"] * a.train
    names = a.networks.split(",")
    peer = lambda name, *more: [sys.executable, os.path.join(peers, name + "_torch.py"), "bench"] + shared + list(more)
    compiled = {}
    if a.compile:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.join(tempfile.gettempdir(), "ppma_inductor"))
        os.environ["TORCHINDUCTOR_FX_GRAPH_CACHE"] = "1"
        compiled = warm({name: peer(name, "--compile", "--repeat", "1") for name in names}, a.warm)
    print(f"batch {a.batch}, {a.size} x {a.size}, {a.dtype}, {a.device}, {'a training step' if a.train else 'inference'}, ms\n")
    print("| network | ppma | eager |" + " compiled |" * a.compile + " ppma again | fastest peer / ppma |")
    print("| --- " * (5 + a.compile) + "|")
    repeat = ["--repeat", str(a.repeat)]
    for name in names:
        ours = [a.tool, "bench", "--model", name + "_tiny", "--json"] + shared + repeat
        cells = [milliseconds(ours, 600), milliseconds(peer(name, *repeat), 600)]
        if a.compile:
            cells.append(milliseconds(peer(name, "--compile", *repeat), 600) if compiled[name] else f"not compiled within {a.warm} s")
        cells.append(milliseconds(ours, 600))
        times = [c for c in cells if not isinstance(c, str)]
        theirs = [c for c in cells[1:-1] if not isinstance(c, str)]
        ratio = f"{min(theirs) / max(cells[0], cells[-1]):.2f}" if theirs and len(times) - len(theirs) == 2 else "-"
        print(f"| `{name}_tiny` | " + " | ".join(c if isinstance(c, str) else f"{c:.1f}" for c in cells) + f" | {ratio} |", flush=True)


main()
