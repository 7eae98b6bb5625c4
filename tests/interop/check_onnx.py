"""Networks as ONNX files beside what ppma computed: check_onnx.py FOLDER. Each NAME.onnx there passes onnx's checker, and
onnxruntime gives for each NAME.BATCH.safetensors the outputs that are in it. Prints a line a network; fails where one differs."""

import glob
import json
import os
import sys

import numpy as np
import onnx
import onnxruntime


def read_safetensors(path):
    data = open(path, "rb").read()
    size = int.from_bytes(data[:8], "little")
    header, data = json.loads(data[8 : 8 + size]), data[8 + size :]
    return {
        name: np.frombuffer(data[slice(*t["data_offsets"])], {"F32": np.float32, "I64": np.int64}[t["dtype"]]).reshape(t["shape"])
        for name, t in header.items()
        if name != "__metadata__"
    }


worst_of_all, failed = 0.0, 0
files = sorted(glob.glob(os.path.join(sys.argv[1], "*.onnx")))
for file in files:
    onnx.checker.check_model(file, full_check=True)
    model = onnx.load(file)
    shapes = {o.name: [d.dim_value or d.dim_param for d in o.type.tensor_type.shape.dim] for o in model.graph.output}
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    worst = 0.0
    batches = sorted(glob.glob(file[: -len("onnx")] + "*.safetensors"))
    assert len(batches) >= 2, f"{file}: fewer than two batches"
    for batch in batches:
        want = read_safetensors(batch)
        names = sorted(set(want) - {"images"})
        assert names == sorted(shapes), f"{file}: outputs {sorted(shapes)} instead of {names}"
        for name, got in zip(names, session.run(names, {"images": want["images"]})):
            declared = [len(want["images"]) if d == "batch" else d for d in shapes[name]]
            fits = len(declared) == got.ndim and all(d in ("objects", n) for d, n in zip(declared, got.shape))
            assert fits and got.shape == want[name].shape, f"{batch}: {name} {got.shape}, {want[name].shape}"
            assert got.dtype == want[name].dtype, f"{batch}: {name} {got.dtype}"
            if got.size > 0:
                worst = max(worst, float(np.abs(got - want[name]).max() / max(1e-30, np.abs(want[name]).max())))
    good = worst < 1e-5
    failed += not good
    worst_of_all = max(worst_of_all, worst)
    print(f"{os.path.basename(file)}: {worst:.1e}{'' if good else ' FAILED'}")
print(f"{len(files)} networks, at most {worst_of_all:.1e} apart")
sys.exit(1 if failed or not files else 0)
