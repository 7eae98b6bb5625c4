#!/usr/bin/env python3
"""Writes images/kinds.safetensors: small image files of every kind that we could think of, as bytes, each with what
Pillow sees in it: "NAME" the file, "NAME pixels" exif_transpose(open(NAME)).convert("RGB"), where Pillow reads it.

  make_image_kinds.py            writes the stored corpus
  make_image_kinds.py FOLDER     writes larger pictures of all kinds as files into FOLDER, NAME.npy beside each

Needs Pillow, numpy, safetensors. PNG, BMP and JPEG have small writers here, as Pillow writes few of their kinds."""
import io
import os
import struct
import sys
import zlib

import numpy as np
from PIL import Image, ImageOps

HERE = os.path.dirname(os.path.abspath(__file__))


def picture(h, w, rng, rough=True):
    """Smooth colours, edges and some noise."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float64)
    a, b, c = rng.uniform(2, 9, 3)
    rgb = np.stack([127 + 140 * np.sin(x / a), 127 + 140 * np.cos(y / b + x / 31), 255 * ((x + c * y) / (w + c * h))], -1)
    rgb[h // 2:, w // 3:] = 255 - rgb[h // 2:, w // 3:]
    if rough:
        rgb += rng.normal(0, 25, rgb.shape)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


# ---- PNG ----

def chunk(kind, data, wrong=False):
    crc = zlib.crc32(kind + data) ^ (1 if wrong else 0)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)


def packed(samples, bits):
    """(h, n) numbers as rows of bytes."""
    if bits == 16:
        return [r.astype(">u2").tobytes() for r in samples]
    if bits == 8:
        return [r.astype(np.uint8).tobytes() for r in samples]
    rows = []
    for r in samples:
        b = ((r[:, None] >> np.arange(bits - 1, -1, -1)) & 1).astype(np.uint8).ravel()
        rows.append(np.packbits(b).tobytes())
    return rows


def filtered(rows, bpp, kind):
    """PNG's filters, all five in turn or one."""
    out, above = b"", bytes(len(rows[0])) if rows else b""
    for n, row in enumerate(rows):
        f = n % 5 if kind is None else kind
        cur, up = np.frombuffer(row, np.uint8).astype(int), np.frombuffer(above, np.uint8).astype(int)
        left = np.concatenate([np.zeros(bpp, int), cur[:-bpp]]) if len(cur) > bpp else np.zeros(len(cur), int)
        corner = np.concatenate([np.zeros(bpp, int), up[:-bpp]]) if len(cur) > bpp else np.zeros(len(cur), int)
        p = left + up - corner
        pa, pb, pc = abs(p - left), abs(p - up), abs(p - corner)
        paeth = np.where((pa <= pb) & (pa <= pc), left, np.where(pb <= pc, up, corner))
        guess = [0, left, up, (left + up) // 2, paeth][f]
        out += bytes([f]) + ((cur - guess) & 255).astype(np.uint8).tobytes()
        above = row
    return out


ADAM7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]


def png(samples, colour, bits, interlaced=False, palette=None, trns=None, before=b"", after=b"", pieces=1, level=9,
        filter_kind=None, broken=(), end=True):
    """samples (h, w, c) of `bits` bits."""
    h, w, c = samples.shape
    bpp = max(1, c * bits // 8)
    if interlaced:
        raw = b""
        for y0, x0, dy, dx in ADAM7:
            part = samples[y0::dy, x0::dx]
            if part.size:
                raw += filtered(packed(part.reshape(part.shape[0], -1), bits), bpp, filter_kind)
    else:
        raw = filtered(packed(samples.reshape(h, -1), bits), bpp, filter_kind)
    data = zlib.compress(raw, level)
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, bits, colour, 0, 0, int(interlaced)),
                                       "IHDR" in broken)
    out += before
    if palette is not None:
        out += chunk(b"PLTE", palette.astype(np.uint8).tobytes(), "PLTE" in broken)
    if trns is not None:
        out += chunk(b"tRNS", trns, "tRNS" in broken)
    step = -(-len(data) // pieces)
    for i in range(0, len(data), step):
        out += chunk(b"IDAT", data[i:i + step], "IDAT" in broken)
    return out + after + (chunk(b"IEND", b"", "IEND" in broken) if end else b"")


# ---- BMP ----

def bmp(indices_or_rgb, bits, top_down=False, header=40, palette=None, masks=None, compression=None, data=None, gap=0,
        colours=None):
    h, w = indices_or_rgb.shape[:2]
    rows = []
    for row in indices_or_rgb:
        if bits <= 8:
            line = packed(row[None].astype(int), bits)[0]
        elif bits == 24:
            line = row[:, ::-1].astype(np.uint8).tobytes()
        else:
            v = np.zeros(w, np.uint64)
            m = masks or ((0x7c00, 0x3e0, 0x1f, 0) if bits == 16 else (0xff0000, 0xff00, 0xff, 0))
            for k in range(4):
                if m[k] and k < row.shape[-1]:
                    low = (m[k] & -m[k]).bit_length() - 1
                    most = m[k] >> low
                    v |= ((row[:, k].astype(np.uint64) * most + 127) // 255) << np.uint64(low)
            line = v.astype("<u2" if bits == 16 else "<u4").tobytes()
        rows.append(line + bytes(-len(line) % 4))
    if data is None:
        data = b"".join(rows if top_down else rows[::-1])
    if compression is None:
        compression = 3 if masks else 0
    table = b""
    if palette is not None:
        for r, g, b in palette:
            table += bytes([b, g, r]) + (b"" if header == 12 else b"\0")
    if header == 12:
        info = struct.pack("<IHHHH", 12, w, h, 1, bits)
    else:
        info = struct.pack("<IiiHHIIiiII", header, w, -h if top_down else h, 1, bits, compression, len(data), 2835, 2835,
                           colours if colours is not None else (len(palette) if palette is not None else 0), 0)
        if header >= 52:
            m = masks or (0, 0, 0, 0)
            info += struct.pack("<III", *m[:3])
            if header >= 56:
                info += struct.pack("<I", m[3])
            info += bytes(header - len(info))
        elif masks:
            table = struct.pack("<III", *masks[:3])
    offset = 14 + len(info) + len(table) + gap
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + info + table + bytes(gap) + data


def rle8(indices, absolute=False):
    out = b""
    for row in indices[::-1]:
        x = 0
        while x < len(row):
            if absolute and len(row) - x >= 3:
                n = min(len(row) - x, 7)
                out += bytes([0, n]) + bytes(int(v) for v in row[x:x + n]) + bytes(n % 2)
                x += n
                continue
            n = 1
            while x + n < len(row) and row[x + n] == row[x] and n < 255:
                n += 1
            out += bytes([n, int(row[x])])
            x += n
        out += b"\0\0"
    return out + b"\0\1"


def rle4(indices):
    out = b""
    for row in indices[::-1]:
        for x in range(0, len(row), 2):
            pair = [int(v) for v in row[x:x + 2]]
            out += bytes([len(pair), pair[0] << 4 | (pair[1] if len(pair) > 1 else 0)])
        out += b"\0\0"
    return out + b"\0\1"


# ---- JPEG, baseline, any sampling, any number of components ----

ZIGZAG = sorted(((y, x) for y in range(8) for x in range(8)),
                key=lambda p: (p[0] + p[1], p[1] if (p[0] + p[1]) % 2 == 0 else p[0]))
LUMA = np.array([16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22,
                 29, 51, 87, 80, 62, 18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87,
                 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99]).reshape(8, 8)
DC_COUNTS = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
DC_VALUES = list(range(12))


def flat_ac():
    """A code for every symbol: 16 bits wide codes are enough and simple; 8 bits for 255 of them would be full."""
    symbols = [r << 4 | s for r in range(16) for s in range(1, 11)] + [0x00, 0xf0]
    counts = [0] * 16
    counts[7] = len(symbols)  # 162 codes of 8 bits
    return counts, symbols


def codes(counts, values):
    table, code, k = {}, 0, 0
    for bits, n in enumerate(counts, 1):
        for _ in range(n):
            table[values[k]] = (code, bits)
            code += 1
            k += 1
        code <<= 1
    return table


def segment(marker, data):
    return bytes([0xff, marker]) + struct.pack(">H", len(data) + 2) + data


def jpeg(planes, factors, quality=90, ids=None, jfif=True, adobe=None, restart=0, before=b"", precision=8, end=True,
         sof=0xc0):
    """planes: (h, w) full size each; factors: (across, down) of each. The planes are averaged down."""
    h, w = planes[0].shape
    n = len(planes)
    ids = ids or list(range(1, n + 1))
    hm, vm = max(f[0] for f in factors), max(f[1] for f in factors)
    scale = 5000 / quality if quality < 50 else 200 - 2 * quality
    q = np.clip((LUMA * scale + 50) // 100, 1, 255).astype(int)
    c = np.array([[np.cos((2 * x + 1) * u * np.pi / 16) * (np.sqrt(0.125) if u == 0 else 0.5) for x in range(8)]
                  for u in range(8)])
    mcu_x, mcu_y = -(-w // (8 * hm)), -(-h // (8 * vm))
    blocks = []
    for p, (fh, fv) in zip(planes, factors):
        ch, cw = -(-h * fv // vm), -(-w * fh // hm)
        full = np.pad(p.astype(float), ((0, mcu_y * 8 * vm - h), (0, mcu_x * 8 * hm - w)), mode="edge")
        ys = np.arange(mcu_y * 8 * fv) * vm // fv
        xs = np.arange(mcu_x * 8 * fh) * hm // fh
        small = full[ys][:, xs] if (vm % fv or hm % fh) else full.reshape(
            mcu_y * 8 * fv, vm // fv, mcu_x * 8 * fh, hm // fh).mean((1, 3))
        small[ch:] = small[ch - 1:ch]
        small[:, cw:] = small[:, cw - 1:cw]
        b = small.reshape(mcu_y * fv, 8, mcu_x * fh, 8).transpose(0, 2, 1, 3) - 128
        blocks.append(np.rint(c @ b @ c.T / q).astype(int))
    dc = codes(DC_COUNTS, DC_VALUES)
    ac_counts, ac_values = flat_ac()
    ac = codes(ac_counts, ac_values)
    out = b"\xff\xd8"
    if jfif:
        out += segment(0xe0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
    out += before
    if adobe is not None:
        out += segment(0xee, b"Adobe\0\x64\0\0\0\0" + bytes([adobe]))
    out += segment(0xdb, b"\0" + bytes(int(q[y, x]) for y, x in ZIGZAG))
    out += segment(sof, struct.pack(">BHHB", precision, h, w, n) +
                   b"".join(bytes([i, fh << 4 | fv, 0]) for i, (fh, fv) in zip(ids, factors)))
    out += segment(0xc4, b"\0" + bytes(DC_COUNTS) + bytes(DC_VALUES))
    out += segment(0xc4, b"\x10" + bytes(ac_counts) + bytes(ac_values))
    if restart:
        out += segment(0xdd, struct.pack(">H", restart))
    out += segment(0xda, bytes([n]) + b"".join(bytes([i, 0]) for i in ids) + b"\0\x3f\0")
    bits = []

    def put(code, length):
        bits.extend((code >> k) & 1 for k in range(length - 1, -1, -1))

    def flush():
        nonlocal out, bits
        bits += [1] * (-len(bits) % 8)
        out += np.packbits(np.array(bits, np.uint8)).tobytes().replace(b"\xff", b"\xff\0") if bits else b""
        bits = []

    def number(v):
        s = abs(v).bit_length()
        return s, v if v >= 0 else v + (1 << s) - 1

    last = [0] * n
    count = 0
    for my in range(mcu_y):
        for mx in range(mcu_x):
            if restart and count and count % restart == 0:
                flush()
                out += bytes([0xff, 0xd0 + (count // restart - 1) % 8])
                last = [0] * n
            count += 1
            for k in range(n):
                fh, fv = factors[k]
                # a scan of one component is not interleaved: a block an MCU
                for by in range(fv):
                    for bx in range(fh):
                        b = blocks[k][my * fv + by, mx * fh + bx]
                        z = [int(b[y, x]) for y, x in ZIGZAG]
                        s, v = number(z[0] - last[k])
                        last[k] = z[0]
                        put(*dc[s])
                        put(v, s)
                        run = 0
                        for a in z[1:]:
                            if a == 0:
                                run += 1
                                continue
                            while run > 15:
                                put(*ac[0xf0])
                                run -= 16
                            s, v = number(max(-1023, min(1023, a)))
                            put(*ac[run << 4 | s])
                            put(v, s)
                            run = 0
                        if run:
                            put(*ac[0])
    flush()
    return out + (b"\xff\xd9" if end else b"")


def ycc(rgb):
    r, g, b = (rgb[..., k].astype(float) for k in range(3))
    return [np.clip(np.rint(p), 0, 255) for p in (
        0.299 * r + 0.587 * g + 0.114 * b, -0.168736 * r - 0.331264 * g + 0.5 * b + 128,
        0.5 * r - 0.418688 * g - 0.081312 * b + 128)]


# ---- EXIF ----

def tiff(orientation, little=True, kind=3, before=0, tag=0x112):
    e = "<" if little else ">"
    head = (b"II*\0" if little else b"MM\0*") + struct.pack(e + "I", 8)
    entries = [struct.pack(e + "HHI", 0x10f + k, 2, 1) + b"x\0\0\0" for k in range(before)]
    value = {1: struct.pack("Bxxx", orientation), 3: struct.pack(e + "HH", orientation, 0),
             4: struct.pack(e + "I", orientation)}[kind]
    entries.append(struct.pack(e + "HHI", tag, kind, 1) + value)
    return head + struct.pack(e + "H", len(entries)) + b"".join(entries) + struct.pack(e + "I", 0)


def app1(data):
    return segment(0xe1, b"Exif\0\0" + data)


XMP = ('<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
       '<rdf:Description %s</rdf:Description></rdf:RDF></x:xmpmeta>')


def kinds(h, w, seed):
    """name -> bytes."""
    rng = np.random.default_rng(seed)
    files = {}
    rgb = picture(h, w, rng)
    grey = rgb[..., 1]
    alpha = np.concatenate([rgb, picture(h, w, rng)[..., :1]], -1)

    def saved(name, image, **options):
        out = io.BytesIO()
        image.save(out, **options)
        files[name] = out.getvalue()

    # PNG: depth, colour, interlacing
    for interlaced in (False, True):
        t = "interlaced " if interlaced else ""
        for bits in (1, 2, 4, 8, 16):
            wide = (grey.astype(int) * 257 + 77) % 65536 if bits == 16 else grey.astype(int) >> (8 - bits)
            files[f"{t}grey {bits}.png"] = png(wide[..., None], 0, bits, interlaced)
            if bits <= 8:
                n = 1 << bits
                files[f"{t}palette {bits}.png"] = png(wide[..., None], 3, bits, interlaced,
                                                      palette=rng.integers(0, 256, (n, 3)))
            if bits >= 8:
                up = (lambda a: a.astype(int) * 257 - 3 * (a > 0)) if bits == 16 else (lambda a: a.astype(int))
                files[f"{t}rgb {bits}.png"] = png(up(rgb), 2, bits, interlaced)
                files[f"{t}rgba {bits}.png"] = png(up(alpha), 6, bits, interlaced)
                files[f"{t}grey alpha {bits}.png"] = png(up(alpha[..., 2:]), 4, bits, interlaced)
    pal = rng.integers(0, 256, (16, 3))
    idx = (grey >> 4)[..., None].astype(int)
    files["palette transparent.png"] = png(idx, 3, 4, palette=pal, trns=bytes(range(0, 160, 16)))
    files["palette 1 transparent interlaced.png"] = png(idx >> 3, 3, 1, True, palette=pal[:2], trns=b"\0\x80")
    files["palette short.png"] = png(idx, 3, 4, palette=pal[:9])
    files["palette of 256 colours, 9 used.png"] = png(idx % 9, 3, 8, palette=rng.integers(0, 256, (256, 3)))
    files["grey colour key.png"] = png(grey[..., None].astype(int), 0, 8, trns=struct.pack(">H", int(grey[0, 0])))
    files["grey 1 colour key.png"] = png(grey[..., None].astype(int) >> 7, 0, 1, trns=b"\0\1")
    files["grey 16 colour key.png"] = png(grey[..., None].astype(int) * 256, 0, 16, trns=b"\0\0")
    files["rgb colour key.png"] = png(rgb.astype(int), 2, 8, trns=struct.pack(">HHH", *map(int, rgb[0, 0])))
    files["rgb 16 colour key.png"] = png(rgb.astype(int) * 257, 2, 16, trns=struct.pack(">HHH", 1, 2, 3))
    files["rgb with palette.png"] = png(rgb.astype(int), 2, 8, palette=pal)
    for f in range(5):
        files[f"filter {f}.png"] = png(rgb.astype(int), 2, 8, filter_kind=f)
    files["stored.png"] = png(rgb.astype(int), 2, 8, level=0)
    files["fast.png"] = png(rgb.astype(int), 2, 8, level=1)
    files["many pieces.png"] = png(rgb.astype(int), 2, 8, pieces=9)
    files["gamma and text.png"] = png(rgb.astype(int), 2, 8, before=chunk(b"gAMA", struct.pack(">I", 100000)) +
                                      chunk(b"tEXt", b"Comment\0some words") + chunk(b"prVt", b"\1\2"))
    files["animated.png"] = png(rgb.astype(int), 2, 8, before=chunk(b"acTL", struct.pack(">II", 1, 0)) + chunk(
        b"fcTL", struct.pack(">IIIIIHHBB", 0, w, h, 0, 0, 1, 10, 0, 0)))
    files["broken IHDR.png"] = png(rgb.astype(int), 2, 8, broken=("IHDR",))
    files["broken PLTE.png"] = png(idx, 3, 4, palette=pal, broken=("PLTE",))
    files["broken tRNS.png"] = png(idx, 3, 4, palette=pal, trns=b"\1", broken=("tRNS",))
    files["broken IDAT.png"] = png(rgb.astype(int), 2, 8, broken=("IDAT",))
    files["broken IEND.png"] = png(rgb.astype(int), 2, 8, broken=("IEND",))
    files["broken text before.png"] = png(rgb.astype(int), 2, 8, before=chunk(b"tEXt", b"a\0b", True))
    files["broken text after.png"] = png(rgb.astype(int), 2, 8, after=chunk(b"tEXt", b"a\0b", True))
    files["without an end.png"] = png(rgb.astype(int), 2, 8, end=False)
    files["bytes after.png"] = png(rgb.astype(int), 2, 8) + b"more"
    for o in range(1, 9):
        files[f"eXIf {o}.png"] = png(rgb.astype(int), 2, 8, before=chunk(b"eXIf", tiff(o, o % 2 == 0)))
    files["eXIf after.png"] = png(rgb.astype(int), 2, 8, after=chunk(b"eXIf", tiff(6)))
    files["eXIf grey 16.png"] = png(grey[..., None].astype(int) * 257, 0, 16, before=chunk(b"eXIf", tiff(8)))
    raw = (b"\nexif\n%8d\n" % len(tiff(6) + b"Exif\0\0")) + (b"Exif\0\0" + tiff(6)).hex().encode() + b"\n"
    files["raw profile.png"] = png(rgb.astype(int), 2, 8, before=chunk(
        b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw)))
    files["raw profile text.png"] = png(rgb.astype(int), 2, 8, before=chunk(b"tEXt", b"Raw profile type exif\0" + raw))
    files["xmp.png"] = png(rgb.astype(int), 2, 8, before=chunk(
        b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + (XMP % 'tiff:Orientation="6">').encode()))

    # BMP
    for top in (False, True):
        t = "top-down " if top else ""
        for bits in (1, 4, 8):
            files[f"{t}palette {bits}.bmp"] = bmp(grey >> (8 - bits), bits, top, palette=rng.integers(0, 256, (1 << bits, 3)))
        for bits in (16, 24, 32):
            files[f"{t}{bits}.bmp"] = bmp(rgb, bits, top)
        files[f"{t}565.bmp"] = bmp(rgb, 16, top, masks=(0xf800, 0x7e0, 0x1f, 0))
        files[f"{t}fields 32.bmp"] = bmp(rgb, 32, top, masks=(0xff0000, 0xff00, 0xff, 0))
        files[f"{t}fields 32 swapped.bmp"] = bmp(rgb, 32, top, masks=(0xff, 0xff00, 0xff0000, 0))
        for header in (52, 56, 64, 108, 124):
            files[f"{t}header {header}.bmp"] = bmp(rgb, 24, top, header)
        files[f"{t}header 108 alpha.bmp"] = bmp(alpha, 32, top, 108, masks=(0xff0000, 0xff00, 0xff, 0xff000000))
        files[f"{t}header 124 alpha.bmp"] = bmp(alpha, 32, top, 124, masks=(0xff0000, 0xff00, 0xff, 0xff000000))
        files[f"{t}header 56 555.bmp"] = bmp(alpha, 16, top, 56, masks=(0x7c00, 0x3e0, 0x1f, 0x8000))
        files[f"{t}header 52 565.bmp"] = bmp(rgb, 16, top, 52, masks=(0xf800, 0x7e0, 0x1f, 0))
    files["os2 24.bmp"] = bmp(rgb, 24, header=12)
    files["os2 8.bmp"] = bmp(grey, 8, header=12, palette=rng.integers(0, 256, (256, 3)))
    files["os2 4.bmp"] = bmp(grey >> 4, 4, header=12, palette=pal)
    files["os2 1.bmp"] = bmp(grey >> 7, 1, header=12, palette=pal[:2])
    files["grey palette 8.bmp"] = bmp(grey, 8, palette=[(i, i, i) for i in range(256)])
    files["palette 8 of 16 colours.bmp"] = bmp(grey >> 4, 8, palette=pal)
    files["palette 4 of 9 colours.bmp"] = bmp((grey >> 4) % 9, 4, palette=pal[:9])
    files["palette 8, colours 0.bmp"] = bmp(grey, 8, palette=rng.integers(0, 256, (256, 3)), colours=0)
    files["gap 24.bmp"] = bmp(rgb, 24, gap=10)
    files["gap 8.bmp"] = bmp(grey, 8, palette=rng.integers(0, 256, (256, 3)), gap=8)
    files["32 with a fourth byte.bmp"] = bmp(alpha, 32, masks=None)
    files["rle8.bmp"] = bmp(grey >> 5, 8, palette=pal, compression=1, data=rle8(grey >> 5))
    files["rle8 absolute.bmp"] = bmp(grey >> 5, 8, palette=pal, compression=1, data=rle8(grey >> 5, True))
    files["rle4.bmp"] = bmp(grey >> 4, 4, palette=pal, compression=2, data=rle4(grey >> 4))
    files["bytes after.bmp"] = bmp(rgb, 24) + b"more"

    # JPEG
    image = Image.fromarray(rgb)
    for subsampling in (0, 1, 2):
        for progressive in (False, True):
            for quality in (30, 75, 95):
                p = "progressive " if progressive else ""
                saved(f"{p}{['444', '422', '420'][subsampling]} {quality}.jpg", image, format="JPEG", quality=quality,
                      subsampling=subsampling, progressive=progressive)
    saved("grey.jpg", Image.fromarray(grey), format="JPEG", quality=90)
    saved("progressive grey.jpg", Image.fromarray(grey), format="JPEG", quality=90, progressive=True)
    saved("optimised.jpg", image, format="JPEG", quality=80, optimize=True)
    saved("pillow restarts.jpg", image, format="JPEG", quality=80, restart_marker_blocks=1)
    saved("pillow cmyk.jpg", image.convert("CMYK"), format="JPEG", quality=90)
    saved("pillow progressive cmyk.jpg", image.convert("CMYK"), format="JPEG", quality=90, progressive=True)
    saved("pillow rgb.jpg", image, format="JPEG", quality=90, keep_rgb=True)
    y = ycc(rgb)
    for name, f in {"411": (4, 1), "440": (1, 2), "410": (4, 2), "441": (1, 4), "420": (2, 2), "422": (2, 1),
                    "311": (3, 1), "313": (1, 3), "442": (2, 4), "444": (1, 1)}.items():
        files[f"own {name}.jpg"] = jpeg(y, [f, (1, 1), (1, 1)])
    files["own 2x2 of 2x1.jpg"] = jpeg(y, [(2, 2), (2, 1), (2, 1)])
    files["own 2x2, 2x1, 1x2.jpg"] = jpeg(y, [(2, 2), (2, 1), (1, 2)])
    files["own chroma finer.jpg"] = jpeg(y, [(1, 1), (2, 2), (2, 2)])
    files["own all 2x2.jpg"] = jpeg(y, [(2, 2)] * 3)
    files["own 3x2 of 2x1.jpg"] = jpeg(y, [(3, 2), (1, 1), (1, 1)])
    files["own 3 over 2.jpg"] = jpeg(y, [(3, 1), (2, 1), (2, 1)])
    for restart in (1, 3):
        files[f"own restarts {restart}.jpg"] = jpeg(y, [(2, 2), (1, 1), (1, 1)], restart=restart)
    files["own bad quality.jpg"] = jpeg(y, [(2, 2), (1, 1), (1, 1)], quality=5)
    files["own best quality.jpg"] = jpeg(y, [(2, 1), (1, 1), (1, 1)], quality=100)
    files["own grey.jpg"] = jpeg(y[:1], [(1, 1)])
    planes = [rgb[..., k] for k in range(3)]
    files["own no jfif.jpg"] = jpeg(y, [(1, 1)] * 3, jfif=False)
    files["own no jfif, other ids.jpg"] = jpeg(y, [(1, 1)] * 3, jfif=False, ids=[7, 8, 9])
    files["own ids from 0.jpg"] = jpeg(y, [(2, 2), (1, 1), (1, 1)], ids=[0, 1, 2])
    files["own rgb by ids.jpg"] = jpeg(planes, [(1, 1)] * 3, jfif=False, ids=[82, 71, 66])
    files["own rgb ids with jfif.jpg"] = jpeg(y, [(1, 1)] * 3, ids=[82, 71, 66])
    files["own rgb by adobe.jpg"] = jpeg(planes, [(1, 1)] * 3, jfif=False, adobe=0)
    files["own adobe 0 and jfif.jpg"] = jpeg(y, [(1, 1)] * 3, adobe=0)
    files["own ycc by adobe.jpg"] = jpeg(y, [(1, 1)] * 3, jfif=False, adobe=1)
    files["own rgb ids, adobe 1.jpg"] = jpeg(y, [(1, 1)] * 3, jfif=False, adobe=1, ids=[82, 71, 66])
    k = 255 - rgb.max(-1)
    cmyk = [255 - rgb[..., c] - k for c in range(3)] + [k]
    files["cmyk without adobe.jpg"] = jpeg(cmyk, [(1, 1)] * 4, jfif=False)
    files["cmyk without adobe, jfif.jpg"] = jpeg(cmyk, [(1, 1)] * 4)
    files["cmyk subsampled without adobe.jpg"] = jpeg(cmyk, [(2, 2), (1, 1), (1, 1), (2, 2)], jfif=False)
    files["cmyk adobe 0.jpg"] = jpeg([255 - p for p in cmyk], [(1, 1)] * 4, jfif=False, adobe=0)
    inverted = np.stack([255 - p for p in cmyk[:3]], -1)
    files["ycck adobe 2.jpg"] = jpeg(ycc(255 - inverted) + [255 - k], [(1, 1)] * 4, jfif=False, adobe=2)
    files["ycck subsampled.jpg"] = jpeg(ycc(255 - inverted) + [255 - k], [(2, 2), (1, 1), (1, 1), (2, 2)], jfif=False, adobe=2)
    files["cmyk adobe 1.jpg"] = jpeg(cmyk, [(1, 1)] * 4, jfif=False, adobe=1)
    files["two components.jpg"] = jpeg(y[:2], [(1, 1)] * 2)
    files["12 bits.jpg"] = jpeg(y[:1], [(1, 1)], precision=12)
    files["extended sequential.jpg"] = jpeg(y, [(2, 2), (1, 1), (1, 1)], sof=0xc1)
    files["arithmetic.jpg"] = jpeg(y, [(1, 1)] * 3, sof=0xc9)
    files["lossless.jpg"] = jpeg(y, [(1, 1)] * 3, sof=0xc3)
    whole = jpeg(y, [(2, 2), (1, 1), (1, 1)])
    files["without an end.jpg"] = whole[:-2]
    files["cut in the middle.jpg"] = whole[:-len(whole) // 4]
    files["bytes after.jpg"] = whole + b"more bytes \xff\xd8"
    files["comment.jpg"] = jpeg(y, [(1, 1)] * 3, before=segment(0xfe, b"words"))
    s = [(2, 2), (1, 1), (1, 1)]
    for o in range(0, 10):
        files[f"exif {o}.jpg"] = jpeg(y, s, before=app1(tiff(o, little=o % 2 == 0)))
    files["exif big endian 8.jpg"] = jpeg(y, s, before=app1(tiff(8, little=False)))
    files["exif after others.jpg"] = jpeg(y, s, before=app1(tiff(6, before=3)))
    files["exif without jfif.jpg"] = jpeg(y, s, jfif=False, before=app1(tiff(3)))
    files["exif after another app1.jpg"] = jpeg(y, s, before=segment(0xe1, b"other data") + app1(tiff(6)))
    files["exif long.jpg"] = jpeg(y, s, before=app1(tiff(6, kind=4)))
    files["exif byte.jpg"] = jpeg(y, s, before=app1(tiff(6, kind=1)))
    files["exif other tag.jpg"] = jpeg(y, s, before=app1(tiff(6, tag=0x113)))
    files["exif corrupt.jpg"] = jpeg(y, s, before=app1(b"garbage"))
    files["exif empty.jpg"] = jpeg(y, s, before=app1(b""))
    files["exif cut.jpg"] = jpeg(y, s, before=app1(tiff(6)[:15]))
    files["exif offset far.jpg"] = jpeg(y, s, before=app1(b"II*\0\xff\xff\0\0"))
    files["exif twice.jpg"] = jpeg(y, s, before=app1(tiff(6)) + app1(tiff(3)))
    files["exif grey.jpg"] = jpeg(y[:1], [(1, 1)], before=app1(tiff(5)))
    files["exif cmyk.jpg"] = jpeg(cmyk, [(1, 1)] * 4, jfif=False, before=app1(tiff(7)))
    saved("exif progressive.jpg", image, format="JPEG", quality=85, progressive=True, exif=b"Exif\0\0" + tiff(6))
    xap = b"http://ns.adobe.com/xap/1.0/\0"
    files["xmp.jpg"] = jpeg(y, s, before=segment(0xe1, xap + (XMP % 'tiff:Orientation="6">').encode()))
    files["xmp element.jpg"] = jpeg(y, s, before=segment(0xe1, xap + (XMP % '><tiff:Orientation>8</tiff:Orientation>').encode()))
    files["xmp and exif.jpg"] = jpeg(y, s, before=app1(tiff(1)) + segment(0xe1, xap + (XMP % 'tiff:Orientation="6">').encode()))
    for size in ((1, 1), (1, 9), (9, 1), (8, 8), (2, 2), (3, 3), (7, 17), (16, 16), (4, 5)):
        t = f"{size[0]}x{size[1]}"
        small = picture(*size, rng)
        files[f"size {t}.png"] = png(small.astype(int), 2, 8, interlaced=size[0] > 2)
        files[f"size {t}.bmp"] = bmp(small, 24)
        saved(f"size {t}.jpg", Image.fromarray(small), format="JPEG", quality=90)
        files[f"size {t} 440.jpg"] = jpeg(ycc(small), [(1, 2), (1, 1), (1, 1)])
        files[f"size {t} 411.jpg"] = jpeg(ycc(small), [(4, 1), (1, 1), (1, 1)])

    # PNM
    files["p6.ppm"] = b"P6 %d %d 255\n" % (w, h) + rgb.tobytes()
    files["p5.pgm"] = b"P5\n# words\n%d %d\n255\n" % (w, h) + grey.tobytes()
    files["p6 100.ppm"] = b"P6 %d %d 100\n" % (w, h) + (rgb // 3).tobytes()
    files["p5 7.pgm"] = b"P5 %d %d 7\n" % (w, h) + (grey >> 5).tobytes()
    files["p6 16.ppm"] = b"P6 %d %d 65535\n" % (w, h) + (rgb.astype(">u2") * 257).tobytes()
    files["p5 16.pgm"] = b"P5 %d %d 65535\n" % (w, h) + (grey.astype(">u2") * 257).tobytes()
    files["p3.ppm"] = b"P3 %d %d 255\n" % (w, h) + b" ".join(b"%d" % v for v in rgb.ravel()) + b"\n"
    files["p2.pgm"] = b"P2 %d %d 255\n" % (w, h) + b" ".join(b"%d" % v for v in grey.ravel()) + b"\n"
    files["p1.pbm"] = b"P1 %d %d\n" % (w, h) + b" ".join(b"%d" % (v >> 7) for v in grey.ravel()) + b"\n"
    files["p4.pbm"] = b"P4 %d %d\n" % (w, h) + np.packbits(grey >> 7, axis=1).tobytes()

    # what is not read, by name
    saved("x.gif", image.quantize(8), format="GIF")
    for name in ("TIFF", "WEBP", "TGA", "JPEG2000", "AVIF", "ICO"):
        try:
            saved("x." + name.lower(), image, format=name)
        except (KeyError, OSError):
            pass
    return files


def seen(data):
    """What Pillow makes of a file, or None."""
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        return np.ascontiguousarray(np.asarray(ImageOps.exif_transpose(image).convert("RGB")))
    except Exception as e:  # noqa: BLE001: Pillow raises many kinds
        seen.why = repr(e)
        return None


def main():
    if len(sys.argv) > 1:
        seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
        h, w = (int(v) for v in sys.argv[3].split("x")) if len(sys.argv) > 3 else (61, 83)
        for name, data in kinds(h, w, seed).items():
            with open(os.path.join(sys.argv[1], name), "wb") as f:
                f.write(data)
            pixels = seen(data)
            if pixels is not None:
                np.save(os.path.join(sys.argv[1], name + ".npy"), pixels)
            else:
                with open(os.path.join(sys.argv[1], name + ".why"), "w") as f:
                    f.write(seen.why)
        return
    from safetensors.numpy import save_file
    stored = {}
    for name, data in kinds(12, 17, 1).items():
        stored[name] = np.frombuffer(data, np.uint8)
        pixels = seen(data)
        if pixels is not None:
            stored[name + " pixels"] = pixels
    save_file(stored, os.path.join(HERE, "images", "kinds.safetensors"))


if __name__ == "__main__":
    main()
