"""In which number format, how quantized, and on which devices a language model is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import transformers

from qsae_core.errors import DataError
from qsae_core.runs import launched, machines
from qsae_data_lm import LmConfig
from qsae_data_lm.families import Layout
from qsae_data_lm.places import require

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Placement:
    """How a model is loaded.

    Attributes:
        dtype: it computes in.
        device: it is on, where it is not spread over several.
        device_map: how it is spread, as accelerate takes it; None: not at all.
        load_in: ``8bit`` or ``4bit`` weights, made while it is loaded; None: as they are stored.
    """

    dtype: torch.dtype
    device: str
    device_map: str | Mapping[str, int | str] | None = None
    load_in: str | None = None

    def options(self, layout: Layout) -> dict[str, Any]:
        """Arguments for ``from_pretrained``.

        Raises:
            DataError: if a library is missing, or the model is stored quantized already.
        """
        options: dict[str, Any] = {"dtype": self.dtype}
        if self.device_map is not None:
            require("device_map", "device-map", "accelerate")
            named = isinstance(self.device_map, str)
            options["device_map"] = self.device_map if named else dict(cast(Any, self.device_map))
        if self.load_in is not None:
            if layout.quantization is not None:
                raise DataError(
                    f"{layout.model} is stored quantized ({layout.quantization}), so it cannot be loaded in "
                    f"{self.load_in} too",
                    where="data.load_in",
                    next="leave --load-in out",
                )
            require(f"load_in: {self.load_in}", "quantized", "bitsandbytes", "accelerate")
            bits = {f"load_in_{self.load_in}": True}
            if self.load_in == "4bit":
                bits["bnb_4bit_compute_dtype"] = self.dtype  # type: ignore[assignment]
            options["quantization_config"] = transformers.BitsAndBytesConfig(**bits)  # type: ignore[no-untyped-call]
        if self.load_in is not None or layout.quantization is not None:  # what cannot be moved afterwards
            options.setdefault("device_map", {"": self.device})
        return options

    def place(self, model: Any, layout: Layout) -> Any:
        """The loaded model where it belongs.

        Raises:
            DataError: if part of it would have to stay in memory or on disk, beside GPUs; if a mapping does
                not name all of it, or names what it has not.
        """
        if self.device_map is None:
            quantized = self.load_in is not None or layout.quantization is not None
            return model if quantized else model.to(self.device)
        if isinstance(self.device_map, Mapping):
            _check_map(self.device_map, model)
        parts: dict[str, Any] = getattr(model, "hf_device_map", {})
        outside = [name for name, device in parts.items() if str(device) in ("cpu", "disk")]
        if outside and (len(outside) < len(parts) or "disk" in map(str, parts.values())):
            raise DataError(
                f"{len(outside)} of {len(parts)} parts of the model find no place on the GPUs "
                f"({outside[0]} the first)",
                where="data.device_map",
                allowed="GPUs that hold all of it",
                next="--load-in 8bit or 4bit, --data.dtype bf16, or more GPUs",
            )
        return model


def _check_map(device_map: Mapping[str, int | str], model: torch.nn.Module) -> None:
    parameters = [name for name, _ in model.named_parameters()]
    there = {name for name, _ in model.named_modules()} | set(parameters)  # the model itself is ""
    empty = [key for key in device_map if key not in there]
    whole = tuple(f"{key}." for key in device_map if key)
    missing = [p for p in parameters if not ("" in device_map or f"{p}.".startswith(whole))]
    if empty or missing:
        what = f"the model has no {empty[0]}" if empty else f"no device is named for {missing[0]}"
        raise DataError(
            f"the mapping does not fit the model: {what}",
            where="data.device_map",
            allowed=f"modules that make up the whole model, or '' for all of it; parameters are named like "
            f"{parameters[0]}",
        )


def placement_of(config: LmConfig, device: str) -> Placement:
    """How a config asks for its model to be loaded, for a run on such a device.

    Raises:
        DataError: if each of several processes of a machine would spread its copy over the same GPUs.
    """
    _refuse_to_share(config.device_map)
    return Placement(choose_dtype(config.dtype, device), device, config.device_map, config.load_in)


def _refuse_to_share(device_map: str | Mapping[str, int | str] | None) -> None:
    on_cpu = isinstance(device_map, Mapping) and all(str(place) == "cpu" for place in device_map.values())
    world, of_machines = launched().world, machines()
    if device_map is not None and not on_cpu and world > of_machines:
        raise DataError(
            f"device_map would spread the copy of the model of each of {world} processes over the same GPUs",
            where="data.device_map",
            allowed="one process on a machine; or a model that fits the GPU that each process has",
            next="leave --device-map out, with --load-in 8bit or 4bit if it does not fit; or harvest first, "
            "in one process: qsae cache",
        )


def choose_dtype(name: str, device: str) -> torch.dtype:
    """The format that a model computes in; `auto` is bf16 only where the processor has it."""
    if name != "auto":
        return _DTYPES[name]
    if device.startswith("cuda"):
        has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bf16 = any(
            getattr(torch.cpu, check, lambda: False)()
            for check in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        )
    return torch.bfloat16 if has_bf16 else torch.float32
