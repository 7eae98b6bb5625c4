"""Writes coco_masks.json and coco_ap.json: what pycocotools says of random and adversarial masks and detections.

    pip install numpy pycocotools==2.0.11 && python make_coco.py
"""
import contextlib, copy, io, json, os

import numpy as np
from pycocotools import mask as M
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

HERE = os.path.dirname(os.path.abspath(__file__))
rng = np.random.default_rng(20)


def r(x, digits=2):
    return [round(float(v), digits) for v in np.ravel(x)]


def polygons():
    """(height, width, polygon)"""
    out = [(20, 30, p) for p in (
        [5, 5, 15, 5, 15, 12, 5, 12], [5.5, 5.5, 15.5, 5.5, 15.5, 12.5, 5.5, 12.5], [0, 0, 30, 0, 30, 20, 0, 20],
        [-5, -4, 40, -3, 35, 28, -6, 25], [3, 3, 3, 3, 3, 3], [3, 3, 10, 3, 20, 3], [4, 2, 4, 9, 4, 15],
        [2, 2, 20, 15, 20, 2, 2, 15], [7, 7, 7, 7, 12, 7, 12, 13, 7, 13, 7, 7], [29.9, 1, 29.9, 19, 25, 10],
        [0.1, 0.1, 0.3, 0.1, 0.2, 0.4], [-30, 5, -10, 5, -20, 15], [10, -40, 12, 60, 14, -40], [29.5, 19.5, 31, 19.5, 31, 22])]
    for n in range(40):
        h, w, k = int(rng.integers(1, 60)), int(rng.integers(1, 60)), int(rng.integers(3, 12))
        p = rng.uniform(-0.2, 1.2, (k, 2)) * [w, h]
        out.append((h, w, r(p if n % 3 else np.round(p * 2) / 2)))
    return out


def make_masks():
    cases, by_size = [], []
    for h, w, p in polygons():
        m = M.frPyObjects([p], h, w)[0]
        bits = M.decode(m)
        runs = [0] if bits.flat[0] else []
        flat = bits.flatten(order="F")
        edges = np.flatnonzero(np.diff(flat)) + 1
        runs += np.diff(np.concatenate([[0], edges, [flat.size]])).tolist()
        cases.append(dict(height=h, width=w, polygon=p, counts=m["counts"].decode(), runs=[int(x) for x in runs],
                          area=int(M.area(m)), box=r(M.toBbox(m))))
    pairs = []
    for n in range(24):
        h, w = 40, 50
        ps = [r(rng.uniform(0, 1, (5, 2)) * [w, h]) for _ in range(3)]
        ms = M.frPyObjects(ps, h, w)
        if n == 0:
            ms[1] = M.encode(np.zeros((h, w), np.uint8, order="F"))
        pairs.append(dict(height=h, width=w, counts=[m["counts"].decode() for m in ms],
                          iou=[float(M.iou([ms[0]], [ms[1]], [c])[0, 0]) for c in (0, 1)],
                          union=M.merge(ms)["counts"].decode(), union_area=int(M.area(M.merge(ms)))))
    boxes = []
    for n in range(24):
        d, g = (np.round(rng.uniform(0, 40, 4), n % 3) for _ in range(2))
        boxes.append(dict(d=d.tolist(), g=g.tolist(), iou=[float(M.iou(d[None], g[None], [c])[0, 0]) for c in (0, 1)]))
    with open(os.path.join(HERE, "coco_masks.json"), "w") as f:
        json.dump(dict(polygons=cases, pairs=pairs, boxes=boxes), f, separators=(",", ":"))


def ring(x, y, w, h):
    t = np.sort(rng.uniform(0, 2 * np.pi, 7))
    return r(np.stack([x + w / 2 + w / 2 * np.cos(t), y + h / 2 + h / 2 * np.sin(t)], 1), 1)


def dataset(images, classes, size=160, objects=5, crowds=0.15, first=1, jitter=0.12, extra=3, ties=False, sides=(4, 120)):
    """Random truths, and detections that are moved copies of them or nonsense. Ids are not contiguous."""
    gt = dict(images=[dict(id=int(7 + 5 * i), file_name=f"{i}.png", height=size, width=size + 16) for i in range(images)],
              categories=[dict(id=int(3 + 4 * c), name=f"class {c}") for c in range(classes)], annotations=[])
    dt = []
    for im in gt["images"]:
        for _ in range(int(rng.integers(0, objects + 1))):
            w, h = (float(v) for v in np.round(np.exp(rng.uniform(np.log(sides[0]), np.log(sides[1]), 2)), 1))
            x, y = (float(v) for v in np.round(rng.uniform(0, [max(size + 16 - w, 1), max(size - h, 1)]), 1))
            cat = gt["categories"][int(rng.integers(0, max(classes - 1, 1)))]["id"]  # the last class stays empty
            crowd = int(rng.random() < crowds)
            poly = ring(x, y, w, h)
            m = M.frPyObjects([poly], size, size + 16)[0]
            if crowd:
                flat = M.decode(m).flatten(order="F")
                edges = np.flatnonzero(np.diff(flat)) + 1
                seg = dict(size=[size, size + 16], counts=([0] if flat[0] else []) + [int(v) for v in np.diff(np.concatenate([[0], edges, [flat.size]]))])
            else:
                seg = [poly] if rng.random() < 0.8 else [poly, ring(x + 2, y + 2, w / 2, h / 2)]
            gt["annotations"].append(dict(id=first + len(gt["annotations"]), image_id=im["id"], category_id=cat, iscrowd=crowd,
                                          bbox=[x, y, w, h], area=round(w * h * 0.7, 1), segmentation=seg))
            for _ in range(int(rng.integers(0, 3))):
                b = np.round(np.array([x, y, w, h]) + rng.normal(0, jitter, 4) * [w, h, w, h], 1)
                dt.append(dict(image_id=im["id"], category_id=cat if rng.random() < 0.9 else gt["categories"][-1]["id"],
                               bbox=[float(b[0]), float(b[1]), float(max(b[2], 1)), float(max(b[3], 1))], score=round(float(rng.random()), 4)))
        for _ in range(int(rng.integers(0, extra + 1))):
            b = r(rng.uniform(1, 60, 4), 1)
            dt.append(dict(image_id=im["id"], category_id=gt["categories"][int(rng.integers(0, classes))]["id"], bbox=b, score=round(float(rng.random()), 4)))
    if ties:
        for d in dt:
            d["score"] = round(d["score"], 1)
    rng.shuffle(dt)
    return gt, dt


def with_masks(gt, dt, boxes=False):
    sizes = {im["id"]: (im["height"], im["width"]) for im in gt["images"]}
    out = []
    for d in dt:
        h, w = sizes[d["image_id"]]
        m = M.frPyObjects([ring(*d["bbox"])], h, w)[0]
        e = {k: v for k, v in d.items() if k != "bbox" or boxes}
        e["segmentation"] = dict(size=[h, w], counts=m["counts"].decode())
        out.append(e)
    return out


def score(gt, dt, kind, mmdet):
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = copy.deepcopy(gt)
        coco.createIndex()
        dt = copy.deepcopy(dt)
        if mmdet and kind == "segm":
            for d in dt:
                if "segmentation" in d:
                    d.pop("bbox", None)
        ev = COCOeval(coco, coco.loadRes(dt), kind)
        if mmdet:
            ev.params.maxDets = [100, 300, 1000]
        ev.evaluate()
        ev.accumulate()
        ev.summarize()
    p = ev.eval["precision"][:, :, :, 0, 2]
    ap = [float(np.mean(p[:, :, k][p[:, :, k] > -1])) if (p[:, :, k] > -1).any() else -1.0 for k in range(p.shape[2])]
    return [float(s) for s in ev.stats], ap


def edges():
    """Areas on the limits, overlaps on the thresholds, truths of equal overlap, crowds that several match."""
    gt = dict(images=[dict(id=i, file_name="", height=200, width=200) for i in (1, 2, 900)], categories=[dict(id=1, name="a"), dict(id=2, name="b"), dict(id=90, name="c")], annotations=[])
    dt = []

    def g(image, cat, box, area=None, crowd=0):
        gt["annotations"].append(dict(id=len(gt["annotations"]) + 1, image_id=image, category_id=cat, bbox=box, area=box[2] * box[3] if area is None else area, iscrowd=crowd))

    def d(image, cat, box, s):
        dt.append(dict(image_id=image, category_id=cat, bbox=box, score=s))
    for n, side in enumerate((32, 96)):
        g(1, 1, [100 * n, 0, side, side])
        d(1, 1, [100 * n, 0, side, side], 0.5)
        d(1, 1, [100 * n, 100, side, side], 0.5)
    for n, share in enumerate(range(50, 100, 5)):  # IoU = share / 100, as near as doubles come
        g(2, 1, [0, 20 * n, 100, 10])
        d(2, 1, [0, 20 * n, float(share), 10], 0.3 + 0.05 * (n % 3))
    g(900, 1, [0, 0, 20, 10])
    g(900, 1, [20, 0, 20, 10])
    d(900, 1, [10, 0, 20, 10], 0.9)
    for x in (0, 1):
        d(900, 1, [x, 0, 20, 10], 0.9)
    g(900, 2, [0, 0, 100, 100], crowd=1)
    g(900, 2, [10, 10, 30, 30])
    for s in range(4):
        d(900, 2, [10, 10, 30, 30], 0.4)
        d(900, 2, [20 * s, 5, 40, 40], 0.4)
    g(2, 2, [50, 50, 10, 10], area=5000.0)  # annotated area and box disagree
    d(2, 2, [50, 50, 10, 10], 0.2)
    return gt, dt


def make_ap():
    cases = []

    def case(name, gt, dt, kinds=("bbox",)):
        for kind in kinds:
            one = dict(name=f"{name}, {kind}", type=kind, gt=gt, dt=dt)
            for key, mmdet in (("coco", False), ("mmdet2", True)):
                one[key], one[key + "_class_ap"] = score(gt, dt, kind, mmdet)
            cases.append(one)
    case("random", *dataset(8, 4))
    case("ties", *dataset(8, 3, ties=True, jitter=0.05))
    gt, dt = dataset(6, 3, crowds=0.5)
    case("crowds", gt, dt)
    case("annotation 0", *dataset(5, 2, first=0, crowds=0.1, jitter=0.03))
    case("edges", *edges())
    gt, dt = dataset(2, 2, objects=12, sides=(8, 30))
    many = [dict(image_id=7, category_id=3, bbox=r(np.concatenate([rng.uniform(0, 120, 2), rng.uniform(8, 30, 2)]), 0), score=round(float(rng.random()), 1)) for _ in range(130)]
    many += [dict(image_id=a["image_id"], category_id=a["category_id"], bbox=a["bbox"], score=round(float(rng.random()) * 0.5, 2)) for a in gt["annotations"] for _ in range(3)]
    case("more than 100", gt, dt + many)
    gt, dt = dataset(7, 3, objects=6, jitter=0.06, sides=(8, 110))
    case("masks", gt, with_masks(gt, dt), ("segm",))
    gt, dt = dataset(5, 2, objects=6, ties=True, jitter=0.04, crowds=0.3, sides=(8, 110))
    case("masks beside boxes", gt, with_masks(gt, dt, boxes=True), ("bbox", "segm"))
    gt, dt = dataset(6, 2, objects=6, jitter=0.05)
    case("boxes as masks", gt, dt, ("segm",))
    gt = dict(gt, annotations=[])
    case("nothing to find", gt, dt)
    with open(os.path.join(HERE, "coco_ap.json"), "w") as f:
        json.dump(cases, f, separators=(",", ":"))
    for c in cases:
        print(c["name"], len(c["gt"]["annotations"]), len(c["dt"]), [round(s, 3) for s in c["coco"]])


if __name__ == "__main__":
    make_masks()
    make_ap()
