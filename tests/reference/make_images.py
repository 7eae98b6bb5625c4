#!/usr/bin/env python3
"""Writes images/: small files in every format that read_image() takes, what Pillow reads from them, and what Pillow and
PyTorch make of an image that is resized. Needs Pillow, numpy, torch, safetensors."""
import io
import os

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "images")


def picture(h, w):
    """Smooth colours with an edge, so that JPEG keeps it well."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    rgb = np.stack([127 + 120 * np.sin(x / 5), 127 + 120 * np.cos(y / 4), 255 * (x + y) / (h + w)], -1)
    rgb[h // 2:, w // 2:] = 255 - rgb[h // 2:, w // 2:]
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def main():
    rgb = picture(17, 23)
    image, grey = Image.fromarray(rgb), Image.fromarray(rgb[..., 1])
    expected = {}

    def save(name, picture, **options):
        path = os.path.join(FOLDER, name)
        picture.save(path, **options)
        expected[name] = np.asarray(Image.open(path).convert("RGB"))

    save("rgb.png", image)
    save("grey.png", grey)
    save("bits.png", grey.convert("1"))
    save("palette.png", image.quantize(16))
    save("alpha.png", Image.fromarray(np.concatenate([rgb, 255 - rgb[..., :1]], -1)))
    save("grey_alpha.png", Image.fromarray(np.stack([rgb[..., 0], rgb[..., 1]], -1), "LA"))
    save("rgb.bmp", image)
    save("grey.bmp", grey)
    save("rgb.ppm", image)
    save("grey.pgm", grey)
    save("rgb.jpg", image, quality=95, subsampling=0)
    save("subsampled.jpg", image, quality=90, subsampling=2)
    save("progressive.jpg", image, quality=95, subsampling=0, progressive=True)
    save("grey.jpg", grey, quality=95)
    # Grey of 16 bits, 256 g + 200, which Pillow cuts off at 255: its upper bytes are the green of rgb.png.
    wide = rgb[..., 1].astype(np.uint16) * 256 + 200
    Image.fromarray(wide).save(os.path.join(FOLDER, "grey16.png"))

    for h, w in ((17, 23), (5, 7), (40, 31), (9, 50), (1, 1), (60, 3)):
        for name, kind in (("bilinear", Image.BILINEAR), ("bicubic", Image.BICUBIC)):
            # Horizontal pass first, as Pillow always did; the newest goes the other way for some sizes (here 9x50).
            expected[f"{name} {h}x{w}"] = np.asarray(image.resize((w, 17), kind).resize((w, h), kind))
        t = torch.from_numpy(rgb).permute(2, 0, 1)[None].double()
        plain = torch.nn.functional.interpolate(t, (h, w), mode="bilinear", align_corners=False)[0]
        expected[f"plain {h}x{w}"] = torch.floor(plain + 0.5).permute(1, 2, 0).byte().contiguous().numpy()
        nearest = torch.nn.functional.interpolate(t, (h, w), mode="nearest")[0]
        expected[f"nearest {h}x{w}"] = nearest.permute(1, 2, 0).byte().contiguous().numpy()
    save_file({k: np.ascontiguousarray(v) for k, v in expected.items()}, os.path.join(FOLDER, "expected.safetensors"))


if __name__ == "__main__":
    main()
