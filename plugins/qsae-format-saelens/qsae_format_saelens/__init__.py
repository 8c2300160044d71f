"""Format ``saelens``: SAEs and transcoders as SAELens writes them."""

from qsae_core import ComponentConfig, ComponentSpec, hookimpl


class SaeLensConfig(ComponentConfig):
    """A folder with cfg.json and sae_weights.safetensors, of SAELens 6 or of an older version."""


@hookimpl
def qsae_register_formats() -> list[ComponentSpec]:
    """Register ``saelens``."""
    target = "qsae_format_saelens.checkpoint_format:SaeLensFormat"
    return [ComponentSpec("format", "saelens", SaeLensConfig, target)]
