"""Reading files of strangers: tensors and settings, and nothing that runs.

Every file here may be damaged, or made to do harm. What it says of sizes is compared with the file before
anything is allocated; tensors are views of the file, mapped into memory, so that reading takes none of it
until they are used. All faults are ArtifactErrors.
"""

from qsae_core.reading.files import file_in, is_file_in, sha256_of
from qsae_core.reading.mapped import LARGE, all_finite, beside, is_mapped, let_go, on_disk, put_rows, rows_of
from qsae_core.reading.npz_files import npz_tensors
from qsae_core.reading.safetensors_files import safetensors_in_memory, safetensors_names, safetensors_tensors
from qsae_core.reading.settings_files import json_settings, yaml_settings
from qsae_core.reading.torch_files import only_tensors, torch_contents

__all__ = [
    "LARGE",
    "all_finite",
    "beside",
    "file_in",
    "is_file_in",
    "is_mapped",
    "json_settings",
    "let_go",
    "npz_tensors",
    "on_disk",
    "only_tensors",
    "put_rows",
    "rows_of",
    "safetensors_in_memory",
    "safetensors_names",
    "safetensors_tensors",
    "sha256_of",
    "torch_contents",
    "yaml_settings",
]
