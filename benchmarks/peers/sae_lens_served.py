"""A folder that SAELens loads, and what its SAE makes of vectors: ``FOLDER ROWS OUT MODULE``.

Rows and output are ``.npy`` files; the module registers the folder's architecture with SAELens.
"""

from __future__ import annotations

import importlib
import sys

import numpy as np
import torch
from sae_lens import SAE

ROWS_AT_ONCE = 4096


@torch.no_grad()
def main(folder: str, rows: str, out: str, module: str) -> None:
    importlib.import_module(module)
    sae = SAE.load_from_disk(folder)
    x = torch.from_numpy(np.load(rows))
    np.save(out, torch.cat([sae(part) for part in x.split(ROWS_AT_ONCE)]).float().numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
