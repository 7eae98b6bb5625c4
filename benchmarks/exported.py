#!/usr/bin/env python3
"""PPMA-T by ONNX Runtime, from `ppma export` and from PyTorch's own export, and by ppma itself: CPU milliseconds of a pass on
one thread, which other programs on the machine disturb less than time on the clock; medians of rounds in which each has its
turn. Checks first that both files give PyTorch's logits.

  python benchmarks/exported.py [--tool build/release/ppma] [--batch 1 8] [--rounds 5]     needs torch, numpy, onnx, onnxruntime
"""
import argparse, os, resource, statistics, subprocess, tempfile, time, warnings

import numpy, onnxruntime, torch

import peer


def by_runtime(session, images, repeat):
    session.run(None, {"images": images})
    t = time.process_time()
    for _ in range(repeat):
        session.run(None, {"images": images})
    return (time.process_time() - t) / repeat * 1000


def by_ppma(tool, batch, repeat):
    """What more passes cost more: loading is not counted."""
    def cpu(passes):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([tool, "bench", "--model", "ppma_tiny", "--batch", str(batch), "--threads", "1", "--repeat", str(passes)],
                       check=True, stdout=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (cpu(repeat + 2) - cpu(2)) / repeat * 1000


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tool", default="build/release/ppma"); p.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    p.add_argument("--rounds", type=int, default=5); p.add_argument("--repeat", type=int, default=5)
    a = p.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(1)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    with tempfile.TemporaryDirectory() as folder:
        weights, own, other = (os.path.join(folder, name) for name in ("weights.pth", "own.onnx", "other.onnx"))
        model = peer.make("tiny", mask="polyline").eval()
        torch.save(peer.weights(model, "polyline"), weights)
        subprocess.run([a.tool, "export", "--model", "ppma_tiny", "--weights", weights, "--out", own], check=True)
        for batch in a.batch:
            images = torch.randn(batch, 3, 224, 224)
            with torch.no_grad():
                want = model(images).numpy()
            torch.onnx.export(model, (images,), other, opset_version=18, dynamo=False, input_names=["images"], output_names=["logits"])
            sessions = {name: onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
                        for name, file in (("ppma export", own), ("torch.onnx.export", other))}
            for name, session in sessions.items():
                error = numpy.linalg.norm(session.run(None, {"images": images.numpy()})[0] - want) / numpy.linalg.norm(want)
                assert error < 1e-5, f"{name}: {error} from PyTorch's logits"
            ms = {name: [] for name in [*sessions, "ppma"]}
            for _ in range(a.rounds):  # each in turn
                for name, session in sessions.items():
                    ms[name].append(by_runtime(session, images.numpy(), a.repeat))
                ms["ppma"].append(by_ppma(a.tool, batch, a.repeat))
            print(f"batch {batch}: " + ", ".join(f"{name} {statistics.median(t):.1f} ms" for name, t in ms.items()), flush=True)
