"""Every hook that a plugin may implement. The docstring of a hook is its contract.

A plugin decorates functions of its top module with ``qsae_core.hookimpl``; it may take a subset of a
hook's arguments, by name. Registration hooks run at start-up and must not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import pathlib

    import click

    from qsae_core.component import ComponentSpec
    from qsae_core.config.run import RunConfig
    from qsae_core.results.run import Run

hookspec = pluggy.HookspecMarker("qsae")


@hookspec
def qsae_register_saes() -> list[ComponentSpec]:  # type: ignore[empty-body]
    """SAE variants. Targets subclass ``qsae_core.coders.MatrixCoder``; target and input are equal."""


@hookspec
def qsae_register_transcoders() -> list[ComponentSpec]:  # type: ignore[empty-body]
    """Transcoders, from one site to another. Targets subclass ``qsae_core.coders.MatrixCoder``."""


@hookspec
def qsae_register_quantizers() -> list[ComponentSpec]:  # type: ignore[empty-body]
    """Weight quantizers. Targets subclass ``qsae_core.contracts.Quantizer``."""


@hookspec
def qsae_register_code_quantizers() -> list[ComponentSpec]:  # type: ignore[empty-body]
    """Quantizers of the codes' values. Targets subclass ``qsae_core.contracts.CodeQuantizer``."""


@hookspec
def qsae_register_activations() -> list[ComponentSpec]:  # type: ignore[empty-body]
    """Activation functions of the pre-activations. Targets subclass ``qsae_core.contracts.Activation``."""


@hookspec
def qsae_register_sparsity_rules() -> list[ComponentSpec]:  # type: ignore[empty-body]
    """Sparsity rules: selection and penalty. Targets subclass ``qsae_core.contracts.SparsityRule``."""


@hookspec
def qsae_register_data_sources() -> list[ComponentSpec]:  # type: ignore[empty-body]
    """Sources of vectors to train and evaluate on. Targets subclass ``qsae_core.contracts.DataSource``."""


@hookspec
def qsae_register_metrics() -> list[ComponentSpec]:  # type: ignore[empty-body]
    """Streaming measurements of a coder's output. Targets subclass ``qsae_core.contracts.Metric``."""


@hookspec
def qsae_register_evaluations() -> list[ComponentSpec]:  # type: ignore[empty-body]
    """Whole evaluations of a trained coder. Targets subclass ``qsae_core.contracts.Evaluation``."""


@hookspec
def qsae_register_formats() -> list[ComponentSpec]:  # type: ignore[empty-body]
    """Other libraries' checkpoint formats. Targets subclass ``qsae_core.contracts.CheckpointFormat``."""


@hookspec
def qsae_register_kernels() -> list[ComponentSpec]:  # type: ignore[empty-body]
    """Compiled operations for a type of device. Targets subclass ``qsae_core.contracts.KernelSet``."""


@hookspec
def qsae_register_trackers() -> list[ComponentSpec]:  # type: ignore[empty-body]
    """Experiment trackers. Targets subclass ``qsae_core.contracts.Tracker``."""


@hookspec
def qsae_register_commands(cli: click.Group) -> None:
    """Add commands to the ``qsae`` command line with ``cli.add_command``; import heavy modules inside them.

    A command whose name is taken is refused, and the plugin is shown as broken.
    """


@hookspec
def qsae_register_addresses() -> dict[str, str]:  # type: ignore[empty-body]
    """Addresses of what lies elsewhere: scheme -> ``"package.module:function"``; ``hf`` is that of ``hf://...``.

    The function is imported when somebody gives an address where a coder is read (``qsae_core.load``,
    ``load_set``, ``read_checkpoint``, ``qsae import``). ``function(address: str, names: Sequence[str])``
    gives the local folder (a path) that has, of the files at the address, those with the given names in the
    same places. A name is a relative path; in it ``*`` stands for any part of a folder's or file's name, and
    ``**/`` at its beginning for folders, if any. Nothing else has to be there, and nothing of it is run.
    Where none of the files is at the address it raises a QsaeError, which the user sees as it is. A scheme
    that two plugins claim is refused.
    """


@hookspec(historic=True)
def qsae_configure(run_config: RunConfig) -> None:
    """Called with the resolved configuration, also for plugins loaded later: when the data is open, on whose
    width the number of latents may hang, and before the coder is built."""


@hookspec
def qsae_train_start(run: Run) -> None:
    """Called once when a run starts or resumes, after its folder exists and before the first step."""


@hookspec
def qsae_step_end(run: Run, step: int, metrics: dict[str, Any]) -> None:
    """Called after each logged step.

    ``metrics``: name -> float or None (loss terms, fvu, l0, dead, lr, tokens per second).
    """


@hookspec
def qsae_checkpoint_saved(run: Run, path: pathlib.Path) -> None:
    """Called when a checkpoint (a resume state or the final artifact) is complete at ``path``."""


@hookspec
def qsae_train_end(run: Run) -> None:
    """Called once after the final artifact and metrics are written."""
