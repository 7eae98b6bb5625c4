#!/usr/bin/env python3
"""Writes voc/: three images in PASCAL VOC's layout with label maps whose palette is VOC's own, by Pillow, and
expected.safetensors: the indices that Pillow reads from them. Needs Pillow, numpy, safetensors.

  a   every class and what does not count; 8 bits, 256 colours
  b   a person with an outline that does not count, as VOC draws them; 8 bits, 256 colours
  c   classes 0 to 11; 4 bits, 16 colours"""
import os

import numpy as np
from PIL import Image
from safetensors.numpy import save_file

FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "voc")


def colours(n):
    """VOC's: the bits of an index, three at a time, from the highest bit of red, green and blue on (its VOClabelcolormap.m)."""
    table = np.zeros((n, 3), np.uint8)
    for i in range(n):
        for bit in range(8):
            for channel in range(3):
                table[i, channel] |= ((i >> (3 * bit + channel)) & 1) << (7 - bit)
    return table


def main():
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        os.makedirs(os.path.join(FOLDER, folder), exist_ok=True)
    y, x = np.mgrid[0:32, 0:44]
    every = (x // 2 + 5 * (y // 8)) % 22
    every[every == 21] = 255
    far = np.hypot(y - 16, x - 20)
    person = np.where(far < 8, 15, np.where(far < 11, 255, 0))
    maps = {"a": (every, 256), "b": (person, 256), "c": ((x // 4 + y // 8) % 12, 16)}
    expected = {}
    for name, (labels, n) in maps.items():
        labels = labels.astype(np.uint8)
        path = os.path.join(FOLDER, "SegmentationClass", name + ".png")
        image = Image.frombytes("P", labels.shape[::-1], labels.tobytes())
        image.putpalette(colours(n).tobytes())
        image.save(path, bits=8 if n == 256 else 4)
        back = Image.open(path)
        assert back.mode == "P"
        expected[name] = np.array(back)
        assert (expected[name] == labels).all()
        back.convert("RGB").save(os.path.join(FOLDER, "JPEGImages", name + ".jpg"), quality=90)
    for part, names in (("train", "a\nb\n"), ("val", "c\n")):
        with open(os.path.join(FOLDER, "ImageSets", "Segmentation", part + ".txt"), "w") as f:
            f.write(names)
    save_file(expected, os.path.join(FOLDER, "expected.safetensors"))


if __name__ == "__main__":
    main()
