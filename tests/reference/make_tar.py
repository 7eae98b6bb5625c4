"""Writes tar/*.tar, the archives that tests/data/tar_test.cpp reads: by Python's tarfile in each of its formats and, where it
is installed, by GNU tar. Each holds the folder "a", a file of three bytes, an empty one and one with a name of 230 letters.

    python3 tests/reference/make_tar.py
"""

import io
import pathlib
import shutil
import subprocess
import tarfile
import tempfile

here = pathlib.Path(__file__).parent / "tar"
here.mkdir(exist_ok=True)
long_name = "deep/" + "x" * 130 + "/" + "y" * 91 + ".z"
assert len(long_name) == 229
files = {"a/b.txt": b"one", "empty": b"", "caf\u00e9 .jpg": bytes(range(256)) * 2, long_name: b"long"}


def whole(path):
    """Without what fills the last record, but for the two blocks that end an archive."""
    data = path.read_bytes()
    end = len(data.rstrip(b"\0"))
    path.write_bytes(data[: (end + 511) // 512 * 512 + 1024])


for name, kind in (("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
    with tarfile.open(here / f"{name}.tar", "w", format=kind) as tar:
        folder = tarfile.TarInfo("a")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for path, data in files.items():
            info = tarfile.TarInfo(path)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    whole(here / f"{name}.tar")

if shutil.which("tar"):
    with tempfile.TemporaryDirectory() as folder:
        for path, data in files.items():
            at = pathlib.Path(folder, path)
            at.parent.mkdir(parents=True, exist_ok=True)
            at.write_bytes(data)
        for name in ("v7", "oldgnu", "posix"):
            names = [f for f in files if name != "v7" or len(f) < 100]
            subprocess.run(["tar", f"--format={name}", "--sort=name", "--mtime=@0", "--owner=root:0", "--group=root:0",
                            "-C", folder, "-cf", here / f"tar_{name}.tar", "./a", *sorted(names)[1:]], check=True)
            whole(here / f"tar_{name}.tar")
