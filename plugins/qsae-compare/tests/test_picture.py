"""What the picture of ``qsae compare`` says beside its points."""

from __future__ import annotations

from types import SimpleNamespace

from qsae_compare import picture


def test_floats_that_lie_upon_each_other_have_one_text():
    def point(size, fvu, bits=32.0):
        return SimpleNamespace(mean={"bytes": size, "fvu": fvu, "bits_decoder": bits}, is_float=bits == 32.0)

    points = [point(3e6, 0.1, 4.03), point(3e6, 0.101, 3.03)]
    points += [point(9e6, 0.1), point(9e6, 0.101), point(9e6, 0.11), point(6e6, 0.1)]
    assert picture.texts(points, "bytes") == [
        ((3e6, 0.1), "4 b"),
        ((3e6, 0.101), "3 b"),  # quantized ones always have their own
        ((9e6, 0.1), "float"),
        ((9e6, 0.11), "float"),
        ((6e6, 0.1), "float"),
    ]
