"""What commands of plugins may use: a configuration made, run and quantized; runs and artifacts read.

Names are imported when they are asked for, so that importing this needs no torch. ``Run``, ``RunConfig`` and
``load`` are names of ``qsae_core`` itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from qsae_core.lazy import lazily

if TYPE_CHECKING:
    from qsae_core.artifact.artifact import measurements, save, serve_with
    from qsae_core.artifact.coder_sets import set_measurements
    from qsae_core.artifact.places import (
        MASTERS,
        MEMBERS,
        artifact_folder,
        identity,
        member_folders,
        set_folder,
        stands_alone,
        stored_description,
    )
    from qsae_core.compose.compose import compose_coder, compose_data, open_data
    from qsae_core.compose.kernels import activate_kernels
    from qsae_core.compose.setup import resolve_device
    from qsae_core.config.errors import checked_options
    from qsae_core.config.layers import Layer, check_section, checked_layer, parse_yaml, read_layer
    from qsae_core.config.run import Block, read_block, resolve, resolve_data
    from qsae_core.config.settings import QuantizeConfig
    from qsae_core.evaluation.beside import twin_folder
    from qsae_core.evaluation.other_coder import load_other, load_other_float
    from qsae_core.evaluation.run import evaluate_artifact, recorded_config
    from qsae_core.evaluation.stored import load_result
    from qsae_core.kinds import CODER_SLOTS, PART_SLOTS, QUANTIZER_SLOTS, SLOTS, unquantized
    from qsae_core.launched import launched, machines
    from qsae_core.plugins.records import Plugins, load_plugins
    from qsae_core.quantization.run import quantize_artifact
    from qsae_core.registry import Registry
    from qsae_core.results.evaluated import with_evaluated
    from qsae_core.results.files import (
        atomic_file,
        atomic_folder,
        is_full,
        read_json,
        remove_leftovers,
    )
    from qsae_core.results.hidden_names import temporary_beside
    from qsae_core.results.quantized import check_trained
    from qsae_core.results.run import FLOAT_TWIN, MAIN, slug, values_of
    from qsae_core.results.words import coder_label, measured_on, quantizers_of, rounds_atoms
    from qsae_core.training.run import train
    from qsae_core.training.start import own_device

__all__ = [
    "CODER_SLOTS",
    "FLOAT_TWIN",
    "MAIN",
    "MASTERS",
    "MEMBERS",
    "PART_SLOTS",
    "QUANTIZER_SLOTS",
    "SLOTS",
    "Block",
    "Layer",
    "Plugins",
    "QuantizeConfig",
    "Registry",
    "activate_kernels",
    "artifact_folder",
    "atomic_file",
    "atomic_folder",
    "check_section",
    "check_trained",
    "checked_layer",
    "checked_options",
    "coder_label",
    "compose_coder",
    "compose_data",
    "evaluate_artifact",
    "identity",
    "is_full",
    "launched",
    "load_other",
    "load_other_float",
    "load_plugins",
    "load_result",
    "machines",
    "measured_on",
    "measurements",
    "member_folders",
    "open_data",
    "own_device",
    "parse_yaml",
    "quantize_artifact",
    "quantizers_of",
    "read_block",
    "read_json",
    "read_layer",
    "recorded_config",
    "remove_leftovers",
    "resolve",
    "resolve_data",
    "resolve_device",
    "rounds_atoms",
    "save",
    "serve_with",
    "set_folder",
    "set_measurements",
    "slug",
    "stands_alone",
    "stored_description",
    "temporary_beside",
    "train",
    "twin_folder",
    "unquantized",
    "values_of",
    "with_evaluated",
]

_FROM = {
    "artifact.artifact": ("measurements", "save", "serve_with"),
    "artifact.coder_sets": ("set_measurements",),
    "artifact.places": (
        "MASTERS",
        "MEMBERS",
        "artifact_folder",
        "identity",
        "member_folders",
        "set_folder",
        "stands_alone",
        "stored_description",
    ),
    "compose.compose": ("compose_coder", "compose_data", "open_data"),
    "compose.kernels": ("activate_kernels",),
    "compose.setup": ("resolve_device",),
    "config.errors": ("checked_options",),
    "config.layers": ("Layer", "check_section", "checked_layer", "parse_yaml", "read_layer"),
    "config.run": ("Block", "read_block", "resolve", "resolve_data"),
    "config.settings": ("QuantizeConfig",),
    "evaluation.beside": ("twin_folder",),
    "evaluation.other_coder": ("load_other", "load_other_float"),
    "evaluation.run": ("evaluate_artifact", "recorded_config"),
    "evaluation.stored": ("load_result",),
    "kinds": ("CODER_SLOTS", "PART_SLOTS", "QUANTIZER_SLOTS", "SLOTS", "unquantized"),
    "launched": ("launched", "machines"),
    "plugins.records": ("Plugins", "load_plugins"),
    "quantization.run": ("quantize_artifact",),
    "registry": ("Registry",),
    "results.evaluated": ("with_evaluated",),
    "results.files": (
        "atomic_file",
        "atomic_folder",
        "is_full",
        "read_json",
        "remove_leftovers",
    ),
    "results.hidden_names": ("temporary_beside",),
    "results.quantized": ("check_trained",),
    "results.run": ("FLOAT_TWIN", "MAIN", "slug", "values_of"),
    "results.words": ("coder_label", "measured_on", "quantizers_of", "rounds_atoms"),
    "training.run": ("train",),
    "training.start": ("own_device",),
}
LATER = {name: f"qsae_core.{module}" for module, names in _FROM.items() for name in names}
"""Every name -> the module that defines it."""
__getattr__ = lazily(__name__, LATER)
