"""The architecture ``qsae`` of SAELens: importing this registers it, for ``SAE.load_from_disk``."""

from __future__ import annotations

from qsae_format_saelens import ARCHITECTURE
from sae_lens import register_sae_class

from qsae_in_saelens.sae import QsaeSAE, QsaeSAEConfig
from qsae_in_saelens.saebench import for_saebench

__all__ = ["QsaeSAE", "QsaeSAEConfig", "for_saebench"]

register_sae_class(ARCHITECTURE, QsaeSAE, QsaeSAEConfig)
