"""Transcoders of circuit-tracer around stored coders of qsae, whose weights stay packed."""

from __future__ import annotations

from qsae_in_circuit_tracer.cross_layer import PackedCrossLayerTranscoder
from qsae_in_circuit_tracer.loading import packed_transcoders
from qsae_in_circuit_tracer.transcoder import PackedTranscoder

__all__ = ["PackedCrossLayerTranscoder", "PackedTranscoder", "packed_transcoders"]
