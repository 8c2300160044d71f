"""The ``qsae`` command line; installed as the package ``qsae_cli``."""
