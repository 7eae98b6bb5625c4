"""What the PyTorch peers of this folder share: weights by the formula of ../README.md, the files that tests read, a timer.

A peer is a module `model(**config)` under its published tensor names. Each script has four commands:
  NAME_torch.py make     writes NAME.safetensors: the small network's logits, and the loss and gradients of a training step
  NAME_torch.py names    writes NAME_MODEL.json: names and shapes of the whole network
  NAME_torch.py count    parameters and multiply-accumulates of the whole network at 224 x 224
  NAME_torch.py bench    [--device cpu|cuda] [--batch 8] [--size 224] [--threads 2] [--dtype float32|tf32|bfloat16]
                         [--compile] [--train] [--channels-last] [--repeat 10]
"""
import argparse, json, os, sys, time
import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
from ppma_torch import formula, unit


class DropPath(torch.nn.Module):
    def __init__(self, p):
        super().__init__()
        self.p = p

    def forward(self, x):
        if not self.training or self.p == 0: return x
        return x * x.new_empty((x.shape[0],) + (1,) * (x.dim() - 1)).bernoulli_(1 - self.p) / (1 - self.p)


def image(name, shape):
    return ((2 * unit(name, torch.Size(shape).numel()) - 1) * 1.5).float().double().view(shape)


def by_formula(model):
    """The model in float64 with weights by formula."""
    model = model.double()
    model.load_state_dict({k: formula(k, tuple(v.shape)).to(v.dtype) for k, v in model.state_dict().items()})
    return model


def make(name, config, model, sizes, largest=1024):
    """Stores logits of two images of each size, and of a training step on the first ones the loss and the gradients of tensors
    of up to `largest` elements."""
    from safetensors.torch import save_file
    x, target = [image(name + ".input", (2, 3) + size) for size in sizes], torch.tensor([1, 3])
    m = by_formula(model(**config)).eval()
    kept = {"target": target}
    with torch.no_grad():
        for images in x: kept["logits.%dx%d" % tuple(images.shape[2:])] = m(images)
    m.train()
    loss = F.cross_entropy(m(x[0]), target)
    loss.backward()
    kept["loss"] = loss.detach()
    for k, p in m.named_parameters():
        if p.numel() <= largest: kept["grad." + k] = p.grad
    kept = {k: (v.float() if v.is_floating_point() else v).contiguous() for k, v in kept.items()}
    path = os.path.join(HERE, name + ".safetensors")
    save_file(kept, path, metadata={"config": json.dumps(config)})
    print(path, os.path.getsize(path), "bytes,", len(kept), "tensors, loss", loss.item())


def names(name, title, model):
    parameters = dict(model.named_parameters())
    entries = [{"name": k, "shape": list(v.shape), "dtype": str(v.dtype)[6:], "kind": "parameter" if k in parameters else "buffer"}
               for k, v in model.state_dict().items()]
    path = os.path.join(HERE, f"{name}_{title}.json")
    with open(path, "w") as f:
        f.write('{"model": "%s", "num_entries": %d, "num_parameters": %d, "entries": [\n' % (title, len(entries), sum(p.numel() for p in parameters.values())))
        f.write(",\n".join(json.dumps(e) for e in entries) + "\n]}\n")
    print(path, len(entries), "tensors")


def count(model, size=224):
    from torch.utils.flop_counter import FlopCounterMode
    model = model.eval()
    with FlopCounterMode(display=False) as flops, torch.no_grad(): model(torch.zeros(1, 3, size, size))
    print("parameters", sum(p.numel() for p in model.parameters()), "MACs", flops.get_total_flops() // 2)


def bench(a, model):
    dev = a.device; torch.set_num_threads(a.threads) if dev == "cpu" else None
    if dev == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = a.dtype != "float32"
    m = model.to(dev).train(a.train); x = torch.randn(a.batch, 3, a.size, a.size, device=dev)
    if a.channels_last: m, x = m.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    f = torch.compile(m, dynamic=False) if a.compile else m
    cast = torch.autocast(dev, dtype=torch.bfloat16, enabled=a.dtype == "bfloat16")
    y = torch.randint(0, 1000, (a.batch,), device=dev)
    opt = torch.optim.AdamW(m.parameters(), lr=1e-4) if a.train else None

    def step():
        if a.train:
            opt.zero_grad(set_to_none=True)
            with cast: loss = F.cross_entropy(f(x).float(), y)
            loss.backward(); opt.step()
        else:
            with torch.no_grad(), cast: f(x)
    sync = torch.cuda.synchronize if dev == "cuda" else (lambda: None)
    for _ in range(3): step()
    sync(); ts = []
    for _ in range(a.repeat):
        t = time.perf_counter(); step(); sync(); ts.append(time.perf_counter() - t)
    ts.sort(); t = ts[len(ts) // 2]
    print(json.dumps({"peer": "torch " + torch.__version__, **{k: v for k, v in vars(a).items() if k != "what"}, "ms": round(t * 1e3, 3), "images_per_s": round(a.batch / t, 2),
                      **({"peak_MiB": round(torch.cuda.max_memory_allocated() / 2**20)} if dev == "cuda" else {})}))


def main(doc, name, title, model, whole, small, sizes):
    """The commands of a script: `whole` and `small` are configurations, `sizes` the small network's images, (height, width)."""
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["make", "names", "count", "bench"])
    p.add_argument("--device", default="cpu"); p.add_argument("--batch", type=int, default=8); p.add_argument("--size", type=int, default=224)
    p.add_argument("--threads", type=int, default=2); p.add_argument("--dtype", default="float32"); p.add_argument("--compile", action="store_true")
    p.add_argument("--train", action="store_true"); p.add_argument("--channels-last", action="store_true"); p.add_argument("--repeat", type=int, default=10)
    a = p.parse_args()
    if a.what == "make": make(name, small, model, sizes)
    elif a.what == "names": names(name, title, model(**whole))
    elif a.what == "count": count(model(**whole))
    else: bench(a, model(**whole, **({"drop_path": 0.1} if a.train else {})))
