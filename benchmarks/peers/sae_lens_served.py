"""A folder that SAELens loads, and what its SAE makes of vectors: ``FOLDER ROWS OUT``, both ``.npy`` files.

qsae_in_saelens gives SAELens the architecture of packed folders; it has to be importable.
"""

from __future__ import annotations

import sys

import numpy as np
import qsae_in_saelens  # noqa: F401 (registers the architecture)
import torch
from sae_lens import SAE

ROWS_AT_ONCE = 4096


@torch.no_grad()
def main(folder: str, rows: str, out: str) -> None:
    sae = SAE.load_from_disk(folder)
    x = torch.from_numpy(np.load(rows))
    np.save(out, torch.cat([sae(part) for part in x.split(ROWS_AT_ONCE)]).float().numpy())


if __name__ == "__main__":
    main(*sys.argv[1:])
