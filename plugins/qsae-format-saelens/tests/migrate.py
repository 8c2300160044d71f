"""SAELens' own migration of settings, and TransformerLens' names: JSON in, JSON out, where sae-lens is."""

from __future__ import annotations

import json
import sys

from sae_lens.loading.pretrained_sae_loaders import handle_config_defaulting
from transformer_lens.supported_models import MODEL_ALIASES, OFFICIAL_MODEL_NAMES


def main() -> None:
    asked = json.load(sys.stdin)
    names = {name: MODEL_ALIASES.get(name, []) for name in OFFICIAL_MODEL_NAMES}
    json.dump({"migrated": [handle_config_defaulting(cfg) for cfg in asked], "names": names}, sys.stdout)


if __name__ == "__main__":
    main()
