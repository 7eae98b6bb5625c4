"""2DVMamba (Zhang et al., 2025) in PyTorch, written from the paper: VMamba whose scans go along the rows of their grid and
then down its columns, under VMamba's names. See common.py for `make` and `bench`.
"""
from functools import partial

from common import main
from vmamba_torch import SMALL, VMamba, config

if __name__ == "__main__":
    main("two_d_vmamba", lambda: VMamba(**SMALL, grid=True), config("two_d_vmamba"), partial(VMamba, grid=True))
