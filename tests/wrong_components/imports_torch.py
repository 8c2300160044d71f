"""What a plugin's top module must not do."""

import torch  # noqa: F401
