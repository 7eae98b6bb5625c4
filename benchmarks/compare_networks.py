#!/usr/bin/env python3
"""Races the networks of docs/networks.md, `ppma bench` beside their PyTorch peers (tests/reference/networks), in one run.

  python benchmarks/compare_networks.py --tool build/release/ppma [--networks mambaout,vvt] [--rows inference,training]
                            [--peers eager,compiled] [--device cuda --dtype bf16 --batch 128] [--size 224] [--repeat 10]

Needs torch and safetensors. That both compute the same is tests/networks' business (logits and every gradient). Peers by torch.compile
are compiled first, all side by side, and stand by until it is their turn; for one that is not ready after --warm seconds eager runs,
marked so. Each is timed with nothing beside it: ours, the peers, ours again. The last column takes the fastest peer, the slower of ours.
"""
import argparse, json, os, signal, subprocess, sys, tempfile, time

here = os.path.dirname(os.path.abspath(__file__))
references = os.path.join(here, "..", "tests", "reference", "networks")


class Racer:
    """A process whose last line is JSON with its `ms`. One that stands by has said `ready`, and waits for a line."""

    def __init__(self, command):
        self.out, self.errors = tempfile.TemporaryFile("w+"), tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=self.out, stderr=self.errors, text=True,
                                        start_new_session=True)

    def kill(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)  # its compiler's processes would be beside the race
        except ProcessLookupError:
            pass
        self.process.wait()

    def lines(self, file):
        file.seek(0)
        return file.read().strip().splitlines()

    def ready(self):
        return self.process.poll() is None and self.lines(self.out)[-1:] == ["ready"]

    def milliseconds(self, limit=600):
        try:
            self.process.communicate("\n", timeout=limit)
        except subprocess.TimeoutExpired:
            self.kill()
            return f"not within {limit} s"
        if self.process.returncode != 0:
            return (self.lines(self.errors) or ["failed"])[-1][:80]
        return json.loads(self.lines(self.out)[-1])["ms"]


def compile_all(commands, seconds):
    """The racers that stand by after so many seconds at most; the others are ended."""
    racers = {key: Racer(command) for key, command in commands.items()}
    until = time.monotonic() + seconds
    while time.monotonic() < until and any(r.process.poll() is None and not r.ready() for r in racers.values()):
        time.sleep(0.5)
    ready = {key: r for key, r in racers.items() if r.ready()}
    for key, r in racers.items():
        if key not in ready: r.kill()
    return ready


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tool", default=os.path.join(here, "..", "build", "release", "ppma"))
    p.add_argument("--networks", default="mambaout,vmamba,spatial_mamba,biformer,vvt")
    p.add_argument("--rows", default="inference", help="inference,training: a pass, a step")
    p.add_argument("--peers", default="eager", help="eager,compiled")
    p.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    p.add_argument("--dtype", choices=["f32", "tf32", "bf16"], default="f32")
    p.add_argument("--batch", type=int, default=2)
    p.add_argument("--size", type=int, default=224)
    p.add_argument("--repeat", type=int, default=10)
    p.add_argument("--warm", type=int, default=600, help="seconds for compiling all peers")
    a = p.parse_args()
    names, rows, peers = a.networks.split(","), a.rows.split(","), a.peers.split(",")
    for given, known in [(rows, ["inference", "training"]), (peers, ["eager", "compiled"])]:
        if not set(given) <= set(known): p.error(f"{','.join(given)}: {','.join(known)} are known")

    def arguments(row):
        return ["--batch", str(a.batch), "--size", str(a.size), "--dtype", a.dtype, "--device", a.device, "--repeat", str(a.repeat)] + ["--train"] * (row == "training")

    def peer(name, row, *more):
        return [sys.executable, os.path.join(references, name + "_torch.py"), "bench"] + arguments(row) + list(more)

    compiled = {}
    if "compiled" in peers:
        compiled = compile_all({(n, r): peer(n, r, "--compile", "--stand-by") for n in names for r in rows}, a.warm)
    print(f"batch {a.batch}, {a.size} x {a.size}, {a.dtype}, {a.device}, ms\n")
    print("| network | | ppma |" + "".join(f" {kind} |" for kind in peers) + " ppma again | fastest peer / ppma |\n" + "| --- " * (5 + len(peers)) + "|")
    for name in names:
        for row in rows:
            ours = [a.tool, "bench", "--model", name + "_tiny", "--json"] + arguments(row)
            first, theirs = Racer(ours).milliseconds(), []
            for kind in peers:
                standing = compiled.get((name, row)) if kind == "compiled" else None
                ms = (standing or Racer(peer(name, row))).milliseconds()
                theirs.append((ms, " (eager)" if kind == "compiled" and not standing else ""))
            again = Racer(ours).milliseconds()
            times = [ms for ms, _ in theirs if not isinstance(ms, str)]
            ratio = f"{min(times) / max(first, again):.2f}" if times and not isinstance(first, str) and not isinstance(again, str) else "-"
            show = lambda ms, note="": ms if isinstance(ms, str) else f"{ms:.2f}{note}"
            print(f"| `{name}_tiny` | {row} | {show(first)} |" + "".join(f" {show(*t)} |" for t in theirs) + f" {show(again)} | {ratio} |", flush=True)


main()
