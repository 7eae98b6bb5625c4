#!/usr/bin/env python3
"""Races `ppma bench --task segment|detect` against PyTorch on one machine, side by side in one run.

  python benchmarks/compare_dense.py [--tool build/release/ppma] [--device cpu|cuda] [--rows segment,detect] [--compile] ...

segment  a training step of UperNet on PPMA (tests/reference/upernet_torch.py): loss with the auxiliary head, backward, AdamW
detect   Mask R-CNN's heads on given backbone maps: pyramid, proposals, boxes, masks, pasted into the image. The peer is
         torchvision's FPN, RPN, box head and mask head with the published numbers and RoIAlign at pixel centres, as mmdet has it.
         Then the whole network, from an image on: the backbone is tests/reference/ppma_torch.py, with --compile compiled.

First the check, in float32 with the same random weights: logits to 1e-4; of the detections at least 95 of 100 with the same
class, the same box (IoU above 0.99) and the same score (1e-3). Needs torch, and torchvision for `detect`.
"""
import argparse, json, os, subprocess, sys, tempfile, time
import torch
import torch.nn.functional as F

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(here, "..", "tests", "reference"))
import ppma_torch
import upernet_torch


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0: return {"error": ((done.stderr or done.stdout).strip().splitlines() or ["failed"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def write(path, tensors):
    head, data = {}, b""
    for name, t in tensors.items():
        raw = t.detach().cpu().contiguous().float().numpy().tobytes()
        head[name] = {"dtype": "F32", "shape": list(t.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(head).encode()
    with open(path, "wb") as f: f.write(len(text).to_bytes(8, "little") + text + data)


def ours(a, task, weights, inputs, folder):
    """What the tool computes for these weights and inputs, in float32."""
    file = lambda name: os.path.join(folder, name)
    torch.save({"state_dict": {k: v.cpu() for k, v in weights.items()}}, file("weights.pth"))
    write(file("in.safetensors"), inputs)
    subprocess.run([a.tool, "run", "--task", task, "--model", "ppma_" + a.model, "--weights", file("weights.pth"), "--input", file("in.safetensors"),
                    "--output", file("out.safetensors"), "--device", a.device], check=True)
    return ppma_torch.load(file("out.safetensors"))[0]


def backbone(a):
    torch.manual_seed(1)
    return ppma_torch.PPMA(*ppma_torch.SIZES[a.model]), ppma_torch.SIZES[a.model][0]


def stirred(module):
    """Batch norms with statistics of their own: what is only right for 0 and 1 shows."""
    for m in module.modules():
        if isinstance(m, torch.nn.BatchNorm2d):
            m.running_mean.uniform_(-0.1, 0.1); m.running_var.uniform_(0.5, 2)
    return module


def cells(r, batch):
    if "error" in r: return f"{r['error']} | - | -"
    memory = r.get("peak_tensors_MiB", r.get("peak_MiB"))
    return f"{r['ms']:.2f} | {1000 * batch / r['ms']:.2f} | {'-' if memory is None else f'{memory:.0f}'}"


def segment(a):
    net = stirred(upernet_torch.Segmentor(*backbone(a))).eval().to(a.device)
    x = torch.randn(1, 3, 128, 96)
    with torch.no_grad(): want = net(x.to(a.device)).permute(0, 2, 3, 1).cpu()
    with tempfile.TemporaryDirectory() as folder: got = ours(a, "segment", net.state_dict(), {"input": x}, folder)["logits"]
    error = float((torch.as_tensor(got) - want).norm() / want.norm())
    print(f"segment: logits differ from PyTorch's by {error:.1e} (relative 2-norm)", flush=True)
    if not error < 1e-4: sys.exit("the two do not compute the same; no race")
    del net
    shared = ["--batch", str(a.batch), "--size", str(a.size), "--threads", str(a.threads), "--repeat", str(a.repeat), "--train"]
    theirs = [sys.executable, upernet_torch.__file__, "bench", "--device", a.device, "--model", a.model, "--dtype", {"bf16": "bfloat16", "f32": "float32", "tf32": "tf32"}[a.dtype]] + shared
    results = [run([a.tool, "bench", "--task", "segment", "--device", a.device, "--dtype", a.dtype, "--model", "ppma_" + a.model, "--json"] + shared), run(theirs)]
    if a.compile: results.append(run(theirs + ["--compile"]))
    print("| network | batch | size | dtype | ppma ms | img/s | MiB | eager ms | img/s | MiB | compiled ms | img/s | MiB |\n" + "| --- " * 13 + "|")
    print(f"| UperNet {a.model}, training step | {a.batch} | {a.size} | {a.dtype} | " + " | ".join(cells(r, a.batch) for r in results) + " |", flush=True)


def torchvision_heads(widths):
    from torchvision.models import detection as d
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.rpn import RPNHead, RegionProposalNetwork
    from torchvision.ops import FeaturePyramidNetwork, roi_align
    from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

    class RoiAlign(torch.nn.Module):
        """torchvision.ops.MultiScaleRoIAlign at pixel centres, each box on its level."""
        def __init__(self, size):
            super().__init__()
            self.output_size = (size, size)

        def forward(self, maps, boxes, shapes):
            rois = torch.cat([torch.cat([b.new_full((len(b), 1), i), b], 1) for i, b in enumerate(boxes)])
            level = (torch.log2((rois[:, 3:] - rois[:, 1:3]).prod(1).sqrt() / 56 + 1e-6)).floor().clamp(0, 3).long()
            out = None
            for i, name in enumerate("0123"):
                which = (level == i).nonzero()[:, 0]
                y = roi_align(maps[name], rois[which].to(maps[name].dtype), self.output_size, 1 / (4 << i), 0, aligned=True)
                if out is None: out = y.new_zeros(len(rois), *y.shape[1:])
                out[which] = y
            return out

    class Anchors(AnchorGenerator):
        def generate_anchors(self, scales, ratios, dtype=torch.float32, device="cpu"):  # not rounded
            h = torch.as_tensor(ratios, dtype=dtype, device=device).sqrt()
            w, h = (1 / h)[:, None] * torch.as_tensor(scales, dtype=dtype, device=device), h[:, None] * torch.as_tensor(scales, dtype=dtype, device=device)
            return torch.stack([-w.view(-1), -h.view(-1), w.view(-1), h.view(-1)], 1) / 2

    fpn = FeaturePyramidNetwork(widths, 256, LastLevelMaxPool())
    rpn = RegionProposalNetwork(Anchors(tuple((8 * s,) for s in (4, 8, 16, 32, 64)), ((0.5, 1.0, 2.0),) * 5), RPNHead(256, 3), 0.7, 0.3, 256, 0.5,
                                {"training": 2000, "testing": 1000}, {"training": 1000, "testing": 1000}, 0.7)
    rpn.min_size = 0.0
    m = d.mask_rcnn
    roi = d.roi_heads.RoIHeads(RoiAlign(7), d.faster_rcnn.TwoMLPHead(256 * 49, 1024), d.faster_rcnn.FastRCNNPredictor(1024, 81), 0.5, 0.5, 512, 0.25, None, 0.05, 0.5, 100,
                               RoiAlign(14), m.MaskRCNNHeads(256, (256,) * 4, 1), m.MaskRCNNPredictor(256, 256, 81))
    torch.nn.init.normal_(roi.box_predictor.cls_score.weight, std=2 / 32)  # scores that differ
    return torch.nn.ModuleDict({"fpn": fpn, "rpn": rpn, "roi": roi}).eval()


def published_names(net, bare):
    """The heads' weights as an mmdet checkpoint has them: background is the last class, not the first."""
    s, out = net.state_dict(), {"backbone." + k: v for k, v in bare.state_dict().items()}
    for part in ("weight", "bias"):
        for i in range(4):
            out[f"neck.lateral_convs.{i}.conv.{part}"], out[f"neck.fpn_convs.{i}.conv.{part}"] = s[f"fpn.inner_blocks.{i}.0.{part}"], s[f"fpn.layer_blocks.{i}.0.{part}"]
            out[f"roi_head.mask_head.convs.{i}.conv.{part}"] = s[f"roi.mask_head.{i}.0.{part}"]
        out[f"rpn_head.rpn_conv.{part}"], out[f"rpn_head.rpn_cls.{part}"], out[f"rpn_head.rpn_reg.{part}"] = s[f"rpn.head.conv.0.0.{part}"], s[f"rpn.head.cls_logits.{part}"], s[f"rpn.head.bbox_pred.{part}"]
        out[f"roi_head.bbox_head.shared_fcs.0.{part}"], out[f"roi_head.bbox_head.shared_fcs.1.{part}"] = s[f"roi.box_head.fc6.{part}"], s[f"roi.box_head.fc7.{part}"]
        out[f"roi_head.bbox_head.fc_cls.{part}"], out[f"roi_head.bbox_head.fc_reg.{part}"] = s[f"roi.box_predictor.cls_score.{part}"].roll(-1, 0), s[f"roi.box_predictor.bbox_pred.{part}"][4:]
        out[f"roi_head.mask_head.upsample.{part}"], out[f"roi_head.mask_head.conv_logits.{part}"] = s[f"roi.mask_predictor.conv5_mask.{part}"], s[f"roi.mask_predictor.mask_fcn_logits.{part}"][1:]
    return {k: v.contiguous() for k, v in out.items()}


def detect(a):
    try:
        from torchvision.models.detection.image_list import ImageList
        from torchvision.models.detection.roi_heads import paste_masks_in_image
        from torchvision.ops import box_iou
    except ImportError:
        return print("detect: skipped, there is no torchvision")
    ppma, widths = backbone(a)
    bare = stirred(upernet_torch.Backbone(ppma, widths)).eval().to(a.device)
    net = torchvision_heads(list(widths)).to(a.device)
    size = (a.height, a.width)
    with torch.no_grad(): maps = bare(torch.randn(1, 3, *size, device=a.device))

    def heads(maps):
        with torch.no_grad():
            levels = net["fpn"]({str(i): m for i, m in enumerate(maps)})
            images = ImageList(torch.empty(1, 3, *size, device=a.device), [size])
            found = net["roi"](levels, net["rpn"](images, levels)[0], [size])[0][0]
            found["masks"] = paste_masks_in_image(found["masks"], found["boxes"], size) >= 0.5
            return found

    want = heads(maps)
    weights = published_names(net, bare)
    with tempfile.TemporaryDirectory() as folder:
        got = ours(a, "detect", weights, {f"map{i}": m for i, m in enumerate(maps)}, folder)
        boxes, scores, labels = (torch.as_tensor(got[k]).to(a.device) for k in ("boxes", "scores", "labels"))
        same = (box_iou(want["boxes"], boxes) > 0.99) & (want["labels"][:, None] - 1 == labels) & ((want["scores"][:, None] - scores).abs() < 1e-3)
        share = int(same.any(1).sum())
        print(f"detect: {share} of PyTorch's {len(same)} detections are found alike, of {len(labels)}", flush=True)
        if len(same) < 50 or share < 0.95 * len(same) or len(labels) != len(same): sys.exit("the two do not compute the same; no race")
        timed = [a.tool, "bench", "--task", "detect", "--device", a.device, "--dtype", a.dtype, "--model", "ppma_" + a.model, "--weights", os.path.join(folder, "weights.pth"),
                 "--batch", "1", "--size", str(a.height), "--width", str(a.width), "--threads", str(a.threads), "--repeat", str(a.repeat), "--json"]
        results = [run(timed + ["--heads-only"]), run(timed)]
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = a.dtype != "f32"
    sync = torch.cuda.synchronize if a.device == "cuda" else (lambda: None)
    narrow = lambda: torch.autocast(a.device, dtype=torch.bfloat16, enabled=a.dtype == "bf16")
    image, run_backbone = torch.randn(1, 3, *size, device=a.device), torch.compile(bare, dynamic=False) if a.compile else bare

    def whole():
        with torch.no_grad(): return heads(run_backbone(image))

    print("| network | size | dtype | objects | ppma ms | img/s | MiB | torchvision ms | img/s | MiB |\n" + "| --- " * 10 + "|")
    for name, result, theirs in [("heads alone", results[0], lambda: heads(maps)), ("whole", results[1], whole)]:
        times = []
        if a.device == "cuda": torch.cuda.reset_peak_memory_stats()
        for i in range(3 + a.repeat):
            t = time.perf_counter()
            with narrow(): found = theirs()
            sync()
            if i >= 3: times.append(time.perf_counter() - t)
        r = {"ms": 1e3 * sorted(times)[len(times) // 2]}
        if a.device == "cuda": r["peak_MiB"] = torch.cuda.max_memory_allocated() / 2**20
        print(f"| Mask R-CNN {a.model}, {name} | {a.height} x {a.width} | {a.dtype} | {result.get('objects')} and {len(found['boxes'])} | {cells(result, 1)} | {cells(r, 1)} |", flush=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tool", default=os.path.join(here, "..", "build", "release", "ppma"))
    p.add_argument("--rows", default="segment,detect")
    p.add_argument("--device", default="cpu", choices=["cpu", "cuda"]); p.add_argument("--dtype", default="f32", choices=["f32", "tf32", "bf16"])
    p.add_argument("--model", default="tiny"); p.add_argument("--batch", type=int, default=2); p.add_argument("--size", type=int, default=256)
    p.add_argument("--height", type=int, default=800); p.add_argument("--width", type=int, default=1280)
    p.add_argument("--threads", type=int, default=2); p.add_argument("--repeat", type=int, default=5); p.add_argument("--compile", action="store_true")
    a = p.parse_args()
    torch.set_num_threads(a.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False  # the checks; a race sets what it needs
    print("PyTorch", torch.__version__, torch.cuda.get_device_name() if a.device == "cuda" else f"{a.threads} threads")
    for row in a.rows.split(","): {"segment": segment, "detect": detect}[row](a)


main()
