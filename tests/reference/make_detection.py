"""Values for tests/heads/detection_test.cpp from PyTorch and torchvision -> detection.json.

    python make_detection.py > detection.json

matches: torchvision's Matcher without low-quality matches, and which boxes are positive with them (its rule and mmdet's
name the same boxes, not always the same truth). coder: BoxCoder((10, 10, 5, 5)). levels: LevelMapper(2..5). rpn: the
losses of recipes 3.1 with every anchor sampled, in float64. paste: mmdet's _do_paste_mask, which is grid_sample. nms:
torchvision's nms and, group by group, batched_nms (the exact loop, not the one that moves groups apart), in float32."""
import json
import math

import torch
import torch.nn.functional as F
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.ops import box_iou, nms
from torchvision.ops.boxes import _batched_nms_vanilla
from torchvision.ops.poolers import LevelMapper

torch.manual_seed(4)
torch.set_default_dtype(torch.float64)


def boxes(n, size=100.0):
    a, b = torch.rand(n, 2) * size, torch.rand(n, 2) * size
    lo, hi = torch.minimum(a, b), torch.maximum(a, b)
    return torch.cat([lo, hi + 2], 1).round(decimals=2)


out = {"matches": [], "coder": [], "paste": []}
for n, t in [(60, 5), (200, 9), (40, 1)]:
    b, g = boxes(n), boxes(t)
    iou = box_iou(g, b)
    plain = Matcher(0.5, 0.3, allow_low_quality_matches=False)(iou)
    low = Matcher(0.5, 0.3, allow_low_quality_matches=True)(iou)
    out["matches"].append({"boxes": b.tolist(), "truths": g.tolist(), "plain": plain.tolist(), "low_positive": (low >= 0).int().tolist()})

coder = BoxCoder((10.0, 10.0, 5.0, 5.0))
p, g = boxes(30), boxes(30)
d = coder.encode_single(g, p)
r = torch.randn(30, 4) * 8
back = coder.decode_single(r, p).reshape(30, 4).clamp(0, 90)
out["coder"] = {"proposals": p.tolist(), "truths": g.tolist(), "deltas": d.tolist(), "given": r.tolist(), "decoded": back.tolist(), "size": 90}

many = boxes(60, 900.0)
out["levels"] = {"boxes": many.tolist(), "level": LevelMapper(2, 5)([many]).tolist()}

# RPN on maps of a 32 x 48 image: strides 4 .. 64, three anchors a cell. The truths are such that no two anchors tie for
# the best overlap, which rounding would decide; the last one is given up.
height, width, truths = 32, 48, torch.tensor([[3.5, 0.6, 36.5, 31.6], [1.0, 7.3, 47.5, 30.9], [20.0, 8.0, 33.0, 21.0]])
strides, anchors, scores, deltas = [4, 8, 16, 32, 64], [], [], []
for s in strides:
    h, w = math.ceil(height / s), math.ceil(width / s)
    side = 8 * s
    for i in range(h):
        for j in range(w):
            for ratio in (0.5, 1, 2):
                aw, ah = side / ratio**0.5, side * ratio**0.5
                anchors.append([j * s - aw / 2, i * s - ah / 2, j * s + aw / 2, i * s + ah / 2])
    scores.append(torch.randn(h * w * 3).float().double())
    deltas.append((torch.randn(h * w * 3, 4) * 0.5).float().double())
anchors, x, v = torch.tensor(anchors), torch.cat(scores), torch.cat(deltas)
iou = box_iou(truths, anchors)
best, mine = iou.max(0)
state = torch.full((len(anchors),), -2)
state[best < 0.3] = -1
state[best >= 0.7] = mine[best >= 0.7]
for t in range(len(truths)):
    if iou[t].max() >= 0.3:
        state[iou[t] == iou[t].max()] = t
used, positive = state >= -1, state >= 0
cls = F.binary_cross_entropy_with_logits(x[used], positive[used].double(), reduction="sum") / used.sum()
want = BoxCoder((1.0, 1.0, 1.0, 1.0)).encode_single(truths[state[positive]], anchors[positive])
bbox = (v[positive] - want).abs().sum() / used.sum()
out["rpn"] = {"height": height, "width": width, "truths": truths.tolist(), "scores": [s.tolist() for s in scores],
              "deltas": [q.reshape(-1).tolist() for q in deltas], "cls": cls.item(), "bbox": bbox.item(),
              "positive": int(positive.sum()), "used": int(used.sum())}

for box in [[3.2, 4.7, 20.9, 17.1], [-6.0, 2.0, 9.5, 30.0], [10.0, 10.0, 11.3, 10.9]]:
    m = torch.rand(28, 28)
    H, W = 24, 32
    ys, xs = torch.arange(H) + 0.5, torch.arange(W) + 0.5
    gy = (ys - box[1]) / (box[3] - box[1]) * 2 - 1
    gx = (xs - box[0]) / (box[2] - box[0]) * 2 - 1
    grid = torch.stack([gx[None, :].expand(H, W), gy[:, None].expand(H, W)], 2)[None]
    pasted = F.grid_sample(m[None, None], grid, align_corners=False)[0, 0] >= 0.5
    out["paste"].append({"box": box, "mask": m.reshape(-1).tolist(), "height": H, "width": W, "pasted": pasted.int().reshape(-1).tolist()})

# Scores with ties (the first box wins, in both) for plain nms; all different for groups, where torchvision's order of
# equal ones is open. The last two boxes overlap by exactly one half, which is not more than 0.5.
out["nms"] = []
for n, size, thresholds in [(50, 30.0, (0.3, 0.5)), (200, 60.0, (0.5, 0.7)), (200, 600.0, (0.1,))]:
    b = torch.cat([boxes(n, size), torch.tensor([[700.0, 0, 702, 1], [700, 0, 701, 1]])]).float()
    tied, group = (torch.rand(n + 2) * 40).floor().float() / 40, torch.randint(0, 4, (n + 2,))
    distinct = (torch.randperm(n + 2) + 1).float() / 512
    runs = [{"threshold": t, "plain": nms(b, tied, t).tolist(), "grouped": _batched_nms_vanilla(b, distinct, group, t).tolist()} for t in thresholds]
    out["nms"].append({"boxes": b.tolist(), "tied": tied.tolist(), "distinct": distinct.tolist(), "groups": group.tolist(), "runs": runs})


def rounded(v):
    if isinstance(v, float):
        return float(f"{v:.9g}")
    if isinstance(v, list):
        return [rounded(x) for x in v]
    return {k: rounded(x) for k, x in v.items()} if isinstance(v, dict) else v


print(json.dumps(rounded(out)))
