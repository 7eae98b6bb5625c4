"""Values and gradients of every op, from PyTorch in float64. Writes op_values.json next to this file.

    python tests/reference/op_values.py

One line an op: case(name, function of the inputs, inputs...). The gradient is of sum_i cos(1.7 i + 0.3) y_i. Names and
calls must match tests/op_cases/*_test.cpp.
"""
import json
import math
import pathlib

import torch
import torch.nn.functional as F
import torchvision

CASES = []


def x(*shape, low=-2.0, high=2.0):
    """An input: numbers spread over [low, high) by the golden ratio (the C++ side has the same formula)."""
    return {"shape": list(shape), "low": low, "high": high}


def ints(values, *shape):
    return {"shape": list(shape) or [len(values)], "int": values}


def tensor(spec, k):
    if "int" in spec:
        return torch.tensor(spec["int"]).reshape(spec["shape"])
    u = torch.arange(1, math.prod(spec["shape"]) + 1, dtype=torch.float64) * 0.6180339887498949 + k * 0.37
    t = spec["low"] + (spec["high"] - spec["low"]) * (u - torch.floor(u))
    return t.reshape(spec["shape"]).requires_grad_(True)


def case(name, f, *inputs):
    tensors = [tensor(spec, k) for k, spec in enumerate(inputs)]
    y = f(*tensors)
    entry = {"name": name, "inputs": list(inputs), "shape": list(y.shape), "y": y.detach().flatten().tolist()}
    if y.requires_grad:
        weights = torch.cos(1.7 * torch.arange(y.numel(), dtype=torch.float64) + 0.3).reshape(y.shape)
        (y * weights).sum().backward()
        entry["gradients"] = [None if t.grad is None else t.grad.flatten().tolist() for t in tensors]
    CASES.append(entry)


# ---- arithmetic ----
case("add", torch.add, x(2, 3, 4), x(3, 1))
case("add/row", torch.add, x(2, 3, 4), x(4))
case("add/both broadcast", torch.add, x(2, 1, 3), x(4, 1))
case("add/scalar tensor", torch.add, x(2, 3), x())
case("sub", torch.sub, x(2, 3, 4), x(2, 1, 1))
case("mul", torch.mul, x(2, 3, 4), x(3, 1))
case("mul/per sample", torch.mul, x(3, 2, 2, 5), x(3, 1, 1, 1))
case("mul/long rows", torch.mul, x(2, 19), x(19))
case("div", torch.div, x(2, 3, 4), x(3, 4, low=0.5, high=2))
case("maximum", torch.maximum, x(3, 7), x(3, 1))
case("maximum/equal", torch.maximum, x(2, 2, low=1, high=1), x(2, 2, low=1, high=1))
case("minimum", torch.minimum, x(3, 7), x(7))
case("scale", lambda a: -1.5 * a, x(3, 7))
case("add_scalar", lambda a: a + 0.75, x(3, 7))
case("neg", torch.neg, x(3, 7))
case("exp", torch.exp, x(3, 7, low=-9, high=3))
case("log", torch.log, x(3, 7, low=0.01, high=5))
case("sqrt", torch.sqrt, x(3, 7, low=0.01, high=5))
case("square", torch.square, x(3, 7))
case("abs", torch.abs, x(3, 7))
case("clamp", lambda a: torch.clamp(a, -0.5, 1), x(3, 7))
case("pow", lambda a: a ** 2.5, x(3, 7, low=0.1))
case("pow/negative base", lambda a: a ** 3, x(3, 7))
case("operators", lambda a, b: (2 - a) * b / 3 + (a + 1) / (b + 4) - 5 / (b + 3) - (-a) + (0.5 + a * 2) - (b - 1),
     x(2, 3), x(3, low=0))

# ---- activation ----
case("relu", F.relu, x(3, 7))
case("gelu", F.gelu, x(3, 11, low=-6, high=6))
case("silu", F.silu, x(3, 11, low=-9, high=9))
case("sigmoid", torch.sigmoid, x(3, 11, low=-9, high=9))
case("tanh", torch.tanh, x(3, 11, low=-5, high=5))
case("softplus", F.softplus, x(3, 11, low=-30, high=30))

# ---- reduce ----
case("sum", lambda a: a.sum((0, 2)), x(2, 3, 4))
case("sum/all", torch.sum, x(2, 3, 4))
case("sum/keepdim", lambda a: a.sum((1, -1), keepdim=True), x(2, 3, 2, 5))
case("sum/middle", lambda a: a.sum(1), x(2, 5, 3))
case("sum/long", lambda a: a.sum(-1), x(2, 131))
case("mean", lambda a: a.mean((1, 2)), x(2, 3, 2, 5))
case("mean/all", torch.mean, x(2, 3, 4))
case("max", lambda a: a.max(1).values, x(2, 5, 3))
case("max/last", lambda a: a.max(-1, keepdim=True).values, x(4, 7))
case("min", lambda a: a.min(0).values, x(5, 3))
case("max/indices", lambda a: a.max(1).indices, x(2, 5, 3))
case("argmax", lambda a: a.argmax(-1), x(4, 7))
case("argmax/equal", lambda a: a.argmax(0), x(3, 2, low=1, high=1))

# ---- layout ----
case("reshape", lambda a: a.reshape(3, -1), x(2, 3, 4))
case("permute", lambda a: a.permute(2, 0, 1), x(2, 3, 4))
case("permute/rows", lambda a: a.permute(0, 2, 1, 3), x(2, 3, 4, 5))
case("permute/four", lambda a: a.permute(3, 1, 0, 2), x(2, 3, 4, 5))
case("transpose", lambda a: a.transpose(0, -1), x(19, 21))
case("concat", lambda a, b: torch.cat([a, b], 1), x(2, 3, 4), x(2, 1, 4))
case("concat/last", lambda a, b, c: torch.cat([a, b, c], -1), x(2, 3), x(2, 1), x(2, 4))
case("narrow", lambda a: a.narrow(1, 1, 3), x(2, 5, 3))
case("select", lambda a: a.select(1, 2), x(2, 5, 3))
case("stack", lambda a, b: torch.stack([a, b], 1), x(2, 3), x(2, 3))
case("stack/last", lambda a, b: torch.stack([a, b], -1), x(2, 3), x(2, 3))
case("flip", lambda a: a.flip(1), x(2, 5, 3))
case("broadcast_to", lambda a: a.broadcast_to(2, 3, 4), x(3, 1))
case("cast", lambda a: a.to(torch.int64), x(2, 3))

# ---- softmax ----
case("softmax", lambda a: a.softmax(-1), x(3, 19, low=-5, high=5))
case("softmax/first axis", lambda a: a.softmax(0), x(5, 2, 3))
case("log_softmax", lambda a: a.log_softmax(-1), x(3, 19, low=-5, high=5))
case("log_softmax/middle axis", lambda a: a.log_softmax(1), x(2, 5, 3))

# ---- scan ----
case("cumsum", lambda a: a.cumsum(1), x(2, 7, 3))
case("cumsum/reverse", lambda a: a.flip(-1).cumsum(-1).flip(-1), x(2, 7))


def decay_scan(a, log_decay, axis, direction):
    """By the dense mask: M_ij = product of the decays of the edges between i and j (upper or lower half, or both)."""
    n = a.shape[axis]
    c = log_decay.broadcast_to(a.shape).transpose(axis, -1).cumsum(-1)
    log_mask = c.unsqueeze(-1) - c.unsqueeze(-2)  # row: where the sum stands, column: where the element is
    lower = torch.exp(log_mask).tril()
    upper = torch.exp(-log_mask).triu()
    eye = torch.eye(n, dtype=a.dtype)
    mask = {"forward": lower, "backward": upper, "symmetric": lower + upper - eye}[direction]
    return (mask @ a.transpose(axis, -1).unsqueeze(-1)).squeeze(-1).transpose(axis, -1)


for way in ("forward", "backward", "symmetric"):
    case(f"decay_scan/{way}", lambda a, d: decay_scan(a, d, 1, way), x(2, 5, 3), x(2, 5, 3, low=-2, high=0))
    case(f"decay_scan/{way}, vectors", lambda a, d: decay_scan(a, d, 2, way), x(2, 2, 4, 3), x(2, 2, 4, 1, low=-2, high=0))
case("decay_scan/rows of vectors", lambda a, d: decay_scan(a, d, 1, "symmetric"), x(2, 4, 3, 2), x(2, 4, 3, 1, low=-2, high=0))
case("decay_scan/shared", lambda a, d: decay_scan(a, d, 1, "symmetric"), x(2, 4, 3), x(1, 4, 1, low=-2, high=0))
case("decay_scan/last axis", lambda a, d: decay_scan(a, d, -1, "symmetric"), x(2, 6), x(2, 6, low=-2, high=0))

# ---- pool; PyTorch's maps are (B,C,H,W) ----


def channels_first(f):
    return lambda a: f(a.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


case("avg_pool2d", channels_first(lambda a: F.avg_pool2d(a, 2)), x(2, 4, 6, 3))
case("avg_pool2d/padded", channels_first(lambda a: F.avg_pool2d(a, 3, 2, 1)), x(1, 5, 6, 2))
case("max_pool2d", channels_first(lambda a: F.max_pool2d(a, 2)), x(2, 4, 6, 3))
case("max_pool2d/padded", channels_first(lambda a: F.max_pool2d(a, 3, 2, 1)), x(1, 5, 6, 2))
case("max_pool2d/stride", channels_first(lambda a: F.max_pool2d(a, 1, 2)), x(1, 5, 5, 2))
case("adaptive_avg_pool2d", channels_first(lambda a: F.adaptive_avg_pool2d(a, (3, 2))), x(1, 7, 5, 2))
case("adaptive_avg_pool2d/larger", channels_first(lambda a: F.adaptive_avg_pool2d(a, (4, 6))), x(1, 3, 4, 2))
case("global_avg_pool", lambda a: a.mean((1, 2)), x(2, 3, 4, 5))
case("silu_avg_pool", lambda a: F.silu(a).mean((1, 2)), x(2, 3, 4, 5))

# ---- loss ----
case("cross_entropy", lambda a, t: F.cross_entropy(a, t), x(4, 5), ints([1, 4, 0, 2]))
case("cross_entropy/smooth", lambda a, t: F.cross_entropy(a, t, label_smoothing=0.1), x(4, 19, low=-9, high=9), ints([1, 18, 0, 2]))
case("cross_entropy/ignore", lambda a, t: F.cross_entropy(a, t, label_smoothing=0.2), x(4, 5), ints([1, -100, 0, -100]))
case("cross_entropy/ignored count", lambda a, t: F.cross_entropy(a, t, ignore_index=255, reduction="sum") / 4, x(4, 5),
     ints([1, 255, 0, 255]))
case("cross_entropy/map", lambda a, t: F.cross_entropy(a.permute(0, 3, 1, 2), t), x(2, 2, 3, 4), ints([0, 1, 2, 3] * 3, 2, 2, 3))
case("cross_entropy/soft", lambda a, t: F.cross_entropy(a, t), x(3, 5), x(3, 5, low=0, high=0.5))
case("cross_entropy/soft and smooth", lambda a, t: F.cross_entropy(a, t, label_smoothing=0.1), x(3, 19), x(3, 19, low=0, high=0.1))

# ---- matmul, linear ----
case("matmul", torch.matmul, x(3, 4), x(4, 5))
case("matmul/a transposed", lambda a, b: a.mT @ b, x(2, 4, 3), x(2, 4, 5))
case("matmul/b transposed", lambda a, b: a @ b.mT, x(2, 3, 4), x(5, 4))
case("matmul/both transposed", lambda a, b: a.mT @ b.mT, x(4, 3), x(2, 5, 4))
case("matmul/batch broadcast", torch.matmul, x(2, 1, 3, 4), x(3, 4, 2))
case("matmul/outer axes", torch.matmul, x(2, 1, 2, 3, 2), x(1, 3, 1, 2, 2))
case("matmul/crossed", torch.matmul, x(3, 1, 2, 4), x(1, 2, 4, 3))
case("matmul/many rows", torch.matmul, x(2, 3, 4, 5), x(5, 3))
case("linear", F.linear, x(2, 3, 7), x(5, 7), x(5))
case("linear/several of one input", lambda a, v, w, b: (F.linear(a, v) + F.linear(a, w, b)) * F.linear(F.layer_norm(a, (7,)), v), x(2, 3, 7), x(5, 7), x(5, 7), x(5))
case("linear/no bias", F.linear, x(7), x(5, 7))

# ---- norm ----


def batch_norm(a, w, b, training, read=None):
    """read: which running statistic to return instead of the output."""
    c = a.shape[-1]
    mean, var = torch.linspace(-0.5, 0.5, c, dtype=a.dtype), torch.linspace(0.5, 2, c, dtype=a.dtype)
    rows = a.reshape(-1, c) if read is None else a.detach().reshape(-1, c)
    y = F.batch_norm(rows, mean, var, w, b, training, 0.25, 1e-3)
    return {None: y.reshape(a.shape), "mean": mean, "var": var}[read]


case("layer_norm", lambda a, w, b: F.layer_norm(a, (19,), w, b, 1e-3), x(2, 3, 19), x(19), x(19))
case("layer_norm/narrow", lambda a, w, b: F.layer_norm(a, (3,), w, b, 1e-6), x(5, 3), x(3), x(3))
case("batch_norm/train", lambda a, w, b: batch_norm(a, w, b, True), x(2, 3, 2, 19), x(19), x(19))
case("batch_norm/evaluate", lambda a, w, b: batch_norm(a, w, b, False), x(2, 3, 2, 19), x(19), x(19))
case("batch_norm_gelu", lambda a, w, b: F.gelu(batch_norm(a, w, b, True)), x(2, 3, 2, 19), x(19), x(19))
case("batch_norm_gelu/evaluate", lambda a, w, b: F.gelu(batch_norm(a, w, b, False)), x(2, 3, 2, 19), x(19), x(19))
case("batch_norm_gelu_composed", lambda a, w, b: F.gelu(batch_norm(a, w, b, True)), x(2, 3, 2, 19), x(19), x(19))
case("batch_norm/running mean", lambda a, w, b: batch_norm(a, w, b, True, "mean"), x(5, 3), x(3), x(3))
case("batch_norm/running var", lambda a, w, b: batch_norm(a, w, b, True, "var"), x(5, 3), x(3), x(3))

# ---- conv, depthwise; PyTorch's maps are (B,C,H,W) ----


def conv(a, w, b, **options):
    return F.conv2d(a.permute(0, 3, 1, 2), w, b, **options).permute(0, 2, 3, 1)


case("conv2d", conv, x(2, 4, 5, 3), x(4, 3, 3, 3), x(4))
case("conv2d/strided", lambda a, w, b: conv(a, w, b, stride=2, padding=1), x(2, 5, 4, 3), x(4, 3, 3, 3), x(4))
case("conv2d/1x1", lambda a, w: conv(a, w, None), x(1, 3, 4, 5), x(3, 5, 1, 1))
case("conv2d/groups", lambda a, w, b: conv(a, w, b, stride=2, padding=2, groups=2), x(1, 5, 4, 4), x(6, 2, 3, 2), x(6))
case("conv2d/patches", lambda a, w, b: conv(a, w, b, stride=3), x(1, 7, 6, 2), x(3, 2, 3, 3), x(3))
case("conv2d/gaps", lambda a, w, b: conv(a, w, b, stride=3), x(1, 7, 5, 2), x(3, 2, 2, 2), x(3))
case("conv2d/wide padding", lambda a, w, b: conv(a, w, b, padding=3), x(1, 2, 2, 2), x(2, 2, 3, 3), x(2))
case("conv2d/depthwise", lambda a, w, b: conv(a, w, b, padding=1, groups=3), x(1, 3, 4, 3), x(3, 1, 3, 3), x(3))
case("depthwise_conv2d", lambda a, w, b: conv(a, w, b, padding=1, groups=5), x(2, 3, 4, 5), x(5, 1, 3, 3), x(5))
case("depthwise_conv2d/5x5", lambda a, w, b, d: d + conv(a, w, b, padding=2, groups=3), x(1, 4, 6, 3), x(3, 1, 5, 5), x(3),
     x(1, 4, 6, 3))
case("depthwise_conv2d/add x", lambda a, w, b: a + conv(a, w, b, padding=1, groups=9), x(1, 3, 9, 9), x(9, 1, 3, 3), x(9))
case("depthwise_conv2d/7x7", lambda a, w: conv(a, w, None, padding=3, groups=2), x(1, 5, 4, 2), x(2, 1, 7, 7))
case("depthwise_gelu", lambda a, w, b: F.gelu(a) + conv(F.gelu(a), w, b, padding=1, groups=5), x(2, 3, 4, 5), x(5, 1, 3, 3), x(5))
case("depthwise_gelu_composed", lambda a, w, b: F.gelu(a) + conv(F.gelu(a), w, b, padding=2, groups=3), x(1, 4, 6, 3), x(3, 1, 5, 5), x(3))
case("conv2d_gelu", lambda a, w, b: F.gelu(conv(a, w, b, stride=2, padding=1)), x(1, 5, 4, 3), x(4, 3, 3, 3), x(4))
case("conv2d_gelu_of_images", lambda a, w, b: F.gelu(conv(a.permute(0, 2, 3, 1), w, b, stride=2, padding=1)), x(1, 3, 5, 4),
     x(4, 3, 3, 3), x(4))
case("conv2d_of_images", lambda a, w, b: conv(a.permute(0, 2, 3, 1), w, b, stride=2, padding=1), x(1, 3, 4, 5),
     x(4, 3, 3, 3), x(4))

# ---- rotary, residual ----


def rotary(a, heads, scale):
    """Pairs as complex numbers, turned by exp(i t 10000^-e)."""
    b, h, w, c = a.shape
    half = c // heads // 2
    e = torch.linspace(0, 1, half, dtype=a.dtype)
    turn = torch.arange(h * w, dtype=a.dtype)[:, None] * 10000.0 ** -e
    pairs = torch.view_as_complex(a.reshape(b, h * w, heads, half, 2)) * torch.polar(torch.ones_like(turn), turn)[None, :, None]
    return scale * torch.view_as_real(pairs).reshape(a.shape)


case("rotary", lambda a: rotary(a, 2, 0.5), x(2, 2, 3, 8))
case("rotary/wide heads", lambda a: rotary(a, 1, 1.0), x(1, 3, 2, 20))
case("residual", lambda a, b: a + b, x(2, 3, 5), x(2, 3, 5))
case("residual/scaled", lambda a, b, g: a + torch.tensor([1.25, 0.0]).to(a.dtype)[:, None, None] * g * b, x(2, 3, 9), x(2, 3, 9),
     x(1, 1, 9))
case("residual/layer scale", lambda a, b, g: a + g * b, x(3, 4), x(3, 4), x(4))

# ---- dense prediction; RoIAlign is torchvision's ----
BOXES = [[0, 1.5, 2, 11, 9], [1, -4, -3, 7.25, 5], [0, 20, 1, 30, 40], [1, 3, 3, 3.5, 3.25]]


def resized(h, w, **options):
    return channels_first(lambda a: F.interpolate(a, (h, w), **options))


def roi_align(h, w, scale, sampling_ratio):
    return channels_first(lambda a: torchvision.ops.roi_align(a, torch.tensor(BOXES, dtype=a.dtype), (h, w), scale, sampling_ratio, True))


def conv_transpose(a, w, b, **options):
    return F.conv_transpose2d(a.permute(0, 3, 1, 2), w, b, **options).permute(0, 2, 3, 1)


case("resize", resized(7, 5, mode="bilinear"), x(2, 4, 3, 2))
case("resize/smaller", resized(3, 4, mode="bilinear"), x(1, 8, 7, 2))
case("resize/align corners", resized(7, 5, mode="bilinear", align_corners=True), x(2, 4, 3, 2))
case("resize/align corners, one", resized(1, 4, mode="bilinear", align_corners=True), x(1, 3, 3, 2))
case("resize/nearest", resized(7, 5, mode="nearest"), x(2, 4, 3, 2))
case("resize/nearest, smaller", resized(3, 4, mode="nearest"), x(1, 8, 7, 2))
case("roi_align", roi_align(3, 2, 0.5, 0), x(2, 6, 7, 3))
case("roi_align/fixed", roi_align(2, 3, 0.25, 2), x(2, 6, 7, 3))
case("conv_transpose2d", lambda a, w, b: conv_transpose(a, w, b, stride=2), x(2, 3, 2, 3), x(3, 4, 2, 2), x(4))
case("conv_transpose2d/padded", lambda a, w, b: conv_transpose(a, w, b, stride=2, padding=1), x(1, 3, 4, 2), x(2, 3, 4, 4), x(3))
case("conv_transpose2d/gaps", lambda a, w: conv_transpose(a, w, None, stride=3), x(1, 3, 2, 2), x(2, 3, 2, 2))

# ---- dropout: an implementation of Philox 4x32-10 and of the stream's key of its own ----
MASK = 0xFFFFFFFF


def philox(counter, key):
    c, k = list(counter), list(key)
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ k[0], b & MASK, (a >> 32) ^ c[3] ^ k[1], a & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


def mix(v):
    """The finaliser of splitmix64."""
    m = (1 << 64) - 1
    v = (v + 0x9E3779B97F4A7C15) & m
    v = ((v ^ (v >> 30)) * 0xBF58476D1CE4E5B9) & m
    v = ((v ^ (v >> 27)) * 0x94D049BB133111EB) & m
    return v ^ (v >> 31)


def words(seed, n, first_block=0):
    stream = mix(mix(mix(0)))
    out = []
    for block in range(first_block, first_block + (n + 3) // 4):
        out += philox([block & MASK, block >> 32, stream & MASK, stream >> 32], [seed & MASK, seed >> 32])
    return out[:n]


def dropout(a, p, seed, first_block=0):
    keep = torch.tensor([float(w >= round(p * 2**32)) for w in words(seed, a.numel(), first_block)], dtype=a.dtype)
    return a * keep.reshape(a.shape) / (1 - p)


def drop_path(a, p, seed):
    w = words(seed, 2 * a.shape[0])
    u = torch.tensor([((w[2 * i] >> 5) * 67108864 + (w[2 * i + 1] >> 6)) / 2**53 for i in range(a.shape[0])])
    return a * (u >= p).to(a.dtype).reshape(-1, *[1] * (a.dim() - 1)) / (1 - p)


case("dropout", lambda a: dropout(a, 0.4, 7), x(3, 9))
case("dropout/second", lambda a: dropout(a, 0.4, 7, first_block=1), x(3, 9))
case("drop_path", lambda a: drop_path(a, 0.5, 7), x(6, 2, 3))

with open(pathlib.Path(__file__).with_name("op_values.json"), "w") as out:
    out.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in CASES) + "\n]\n")
print(len(CASES), "cases")
