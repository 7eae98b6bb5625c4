#!/usr/bin/env python3
"""Does our reader of .pth files accept what torch.load(weights_only=True) accepts?

    g++ -std=c++20 -O1 -I../../include ../fuzz/read_all.cpp -o /tmp/read_all
    python compare_torch_load.py /tmp/read_all [COUNT]

Changes small files that torch.save wrote in COUNT (100000) ways, from a fixed seed: bytes flipped, fields of the zip's
headers, opcodes of the pickle (with checksums made right again, or nothing but checksums would be tested), cut short.
Gives each to both readers and prints how many each took, and the differences by class, an example each. What the
classes mean stands in docs/weights-files.md. Needs torch: without it says so and does nothing.
"""
import collections
import io
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import warnings
import zlib

try:
    import torch
except ImportError:
    print("compare_torch_load.py: SKIPPED, there is no torch")
    sys.exit(0)

HERE = os.path.dirname(os.path.abspath(__file__))
OPCODES = b"NJKMGX]})tldaesu(0" + b"12qrhjcRbQ.UC" + bytes([0x80, 0x81, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x95, 0x8C, 0x94])
NUMBERS = [0, 1, 2, 8, 9, 0x20, 0x40, 0x7F, 0x80, 0xFF, 0x800, 0x2000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF]


def seeds():
    """Small files of every kind; those of two PyTorch versions, and some written here."""
    found = []
    for name in sorted(os.listdir(os.path.join(HERE, "pth"))):
        with open(os.path.join(HERE, "pth", name), "rb") as f:
            found.append((name, f.read()))
    linear = torch.nn.Linear(3, 2)
    values = {
        "state_dict": linear.state_dict(),
        "nested": {"model": linear.state_dict(), "epoch": 3, "lr": 0.5, "name": "caf\u00e9", "betas": (0.9, 0.99)},
        "mixed": collections.OrderedDict(a=torch.arange(6).reshape(2, 3).t(), b=torch.zeros(0, 3), c=torch.ones(2, dtype=torch.bfloat16)),
        "optimizer": torch.optim.SGD(linear.parameters(), lr=0.1, momentum=0.9).state_dict(),
        "list": [torch.ones(2), torch.nn.Parameter(torch.ones(1)), None, True, 1 << 70],
    }
    for name, value in values.items():
        for legacy in (False, True):
            f = io.BytesIO()
            torch.save(value, f, _use_new_zipfile_serialization=not legacy)
            found.append((name + ("_legacy" if legacy else ""), f.getvalue()))
    return found


def directory(file):
    """Positions of the zip's central headers."""
    return [m.start() for m in re.finditer(b"PK\1\2", file)]


def entry(file, at):
    """Position of an entry's contents, its size."""
    size, header = struct.unpack_from("<I", file, at + 24)[0], struct.unpack_from("<I", file, at + 42)[0]
    name, extra = struct.unpack_from("<HH", file, header + 26)
    return header + 30 + name + extra, size


def with_right_checksums(file):
    for at in directory(file):
        try:
            begin, size = entry(file, at)
            struct.pack_into("<I", file, at + 16, zlib.crc32(bytes(file[begin : begin + size])))
        except struct.error:
            pass
    return file


def changed(file, rng):
    """The name of a kind of change, and the changed file."""
    file = bytearray(file)
    is_zip = file[:2] == b"PK"
    kind = rng.choice(["flip", "cut", "pickle", "pickle", "pickle", "fields", "fields", "tail"] if is_zip else ["flip", "cut", "flip"])
    if kind == "flip":
        for _ in range(rng.randint(1, 4)):
            file[rng.randrange(len(file))] = rng.randrange(256)
        if is_zip and rng.random() < 0.7:
            file = with_right_checksums(file)
    elif kind == "cut":
        del file[rng.randrange(len(file)) :]
    elif kind == "tail":
        file += bytes(rng.randrange(256) for _ in range(rng.choice([1, 2, 64])))
    elif kind == "fields":
        headers = directory(file)
        end = file.rfind(b"PK\5\6")
        at, width = rng.choice(
            [(rng.choice(headers) + o, w) for o, w in [(6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (34, 2), (42, 4)]]
            + [(end + o, w) for o, w in [(4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)]]
            + [(struct.unpack_from("<I", file, rng.choice(headers) + 42)[0] + o, w) for o, w in [(4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)]]
        )
        old = int.from_bytes(file[at : at + width], "little")
        new = rng.choice([rng.choice(NUMBERS), old ^ (1 << rng.randrange(8 * width)), old + rng.choice([-1, 1])])
        file[at : at + width] = (new % (1 << (8 * width))).to_bytes(width, "little")
    else:
        at = next(h for h in directory(file) if b"data.pkl" in file[h + 46 : h + 90])
        begin, size = entry(file, at)
        for _ in range(rng.randint(1, 2)):
            i = begin + rng.randrange(size)
            what = rng.randrange(4)
            if what == 0:
                file[i] = rng.choice(OPCODES)
            elif what == 1:
                file[i] ^= 1 << rng.randrange(8)
            elif what == 2:  # a piece moved over another
                n = rng.randint(1, 12)
                j = begin + rng.randrange(max(1, size - n))
                n = min(n, begin + size - i)
                file[i : i + n] = file[j : j + n]
            else:
                file[i] = rng.randrange(256)
        file = with_right_checksums(file)
    return kind, bytes(file)


def of_torch(path):
    try:
        torch.load(path, weights_only=True, map_location="cpu")
        return "ok"
    except Exception as e:  # whatever it is, the file was refused
        why = str(e).split("WeightsUnpickler error:")[-1].strip()  # PyTorch's advice comes before
        return "refused " + type(e).__name__ + ": " + why.replace("\n", " ")


def main():
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    reader, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100000
    rng = random.Random(7)
    files = seeds()
    ours = {True: 0, False: 0}
    theirs = {True: 0, False: 0}
    classes = collections.OrderedDict()
    both = 0
    with tempfile.TemporaryDirectory() as folder:
        done = 0
        while done < count:
            batch = []
            for i in range(min(2000, count - done)):
                name, file = files[i % len(files)] if done == 0 and i < len(files) else rng.choice(files)
                kind, file = ("whole", file) if done == 0 and i < len(files) else changed(file, rng)
                path = os.path.join(folder, str(i))
                with open(path, "wb") as f:
                    f.write(file)
                batch.append((path, name, kind))
            out = subprocess.run([reader], input="".join(p + "\n" for p, _, _ in batch), capture_output=True, text=True, errors="replace")
            lines = out.stdout.split("\n")
            if out.returncode != 0 or len(lines) != len(batch) + 1:
                sys.exit(f"the reader stopped at {batch[max(0, len(lines) - 1)]}: {out.stderr}")
            for (path, name, kind), line in zip(batch, lines):
                torch_says = of_torch(path)
                a, b = line.startswith("ok"), torch_says == "ok"
                ours[a] += 1
                theirs[b] += 1
                if a == b:
                    both += 1
                    continue
                says = torch_says if a else line
                says = re.sub(r"\S*/%s\b" % os.path.basename(path), "FILE", says)
                says = re.sub(r"GLOBAL .* was not", "GLOBAL _ was not", says)
                key = ("only we take it" if a else "only torch takes it", re.sub(r"'[^']*'|\"[^\"]*\"|0x[0-9a-f]+|-?\d+|<[^>]*>", "_", says)[:110])
                if key not in classes:
                    classes[key] = [0, collections.Counter(), name, (line if a else "") + " | " + says]
                classes[key][0] += 1
                classes[key][1][kind] += 1
            done += len(batch)
            print(f"{done} files", file=sys.stderr, flush=True)
    print(f"{count} files: {both} alike; taken by us {ours[True]}, by torch.load {theirs[True]}")
    for (side, what), (n, kinds, name, example) in sorted(classes.items(), key=lambda c: (c[0][0], -c[1][0])):
        print(f"{n:7d}  {side}: {what}  {dict(kinds)}\n         e.g. of {name}: {example[:300]}")


main()
