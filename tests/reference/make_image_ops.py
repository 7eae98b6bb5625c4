#!/usr/bin/env python3
"""Writes image_ops.safetensors: what Pillow makes of one image with the fifteen changes of RandAugment, at three
magnitudes and in both directions, by the rules of timm 0.5.4. Needs Pillow, numpy, safetensors."""
import os

import numpy as np
from PIL import Image, ImageEnhance, ImageOps
from safetensors.numpy import save_file

FILL = (124, 116, 104)


def picture(h, w):
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    rgb = np.stack([120 + 90 * np.sin(x / 3), 127 + 100 * np.cos(y / 4 + x / 9), 20 + 200 * (x + y) / (h + w)], -1)
    rgb += np.random.default_rng(0).normal(0, 12, rgb.shape)
    rgb[h // 3:, w // 2:] = 255 - rgb[h // 3:, w // 2:]
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def affine(image, matrix):
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BICUBIC, fillcolor=FILL)


def changes(image, m, sign):
    level = m / 10
    factor = max(0.1, 1 + sign * (level * 0.9))
    w, h = image.size
    add = [min(255, i + int(level * 110)) if i < 128 else i for i in range(256)]
    return {
        "auto_contrast": ImageOps.autocontrast(image),
        "equalize": ImageOps.equalize(image),
        "invert": ImageOps.invert(image),
        "rotate": image.rotate(sign * (level * 30), resample=Image.Resampling.BICUBIC, fillcolor=FILL),
        "posterize": image.point([i & ~(2 ** (8 - (4 - int(level * 4))) - 1) for i in range(256)] * 3),
        "solarize": ImageOps.solarize(image, 256 - int(level * 256)),
        "solarize_add": image.point(add * 3),
        "color": ImageEnhance.Color(image).enhance(factor),
        "contrast": ImageEnhance.Contrast(image).enhance(factor),
        "brightness": ImageEnhance.Brightness(image).enhance(factor),
        "sharpness": ImageEnhance.Sharpness(image).enhance(factor),
        "shear_x": affine(image, (1, sign * (level * 0.3), 0, 0, 1, 0)),
        "shear_y": affine(image, (1, 0, 0, sign * (level * 0.3), 1, 0)),
        "translate_x": affine(image, (1, 0, sign * (level * 0.45) * w, 0, 1, 0)),
        "translate_y": affine(image, (1, 0, 0, 0, 1, sign * (level * 0.45) * h)),
    }


def main():
    rgb = picture(20, 27)
    out = {"image": rgb}
    for m in (3.7, 9.25, 10):
        for sign in (1, -1):
            for name, result in changes(Image.fromarray(rgb), m, sign).items():
                out[f"{name}.{m}.{'+' if sign > 0 else '-'}"] = np.asarray(result).copy()
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "image_ops.safetensors")
    save_file(out, path)


if __name__ == "__main__":
    main()
