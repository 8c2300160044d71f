"""Benchmarks: ``python -m benchmarks`` measures qsae beside its peers and writes docs/performance.md."""
