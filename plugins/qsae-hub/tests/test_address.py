"""Addresses of the Hub, and patterns of paths."""

import pytest
from qsae_hub.address import Address, is_inside
from qsae_hub.errors import HubError
from qsae_hub.names import matches


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://me/saes", Address("me/saes")),
        ("hf://me/saes/", Address("me/saes")),
        (
            "hf://google/gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71",
            Address("google/gemma-scope-2b-pt-res", None, "layer_20/width_16k/average_l0_71"),
        ),
        ("hf://me/a.b_c@v1.0/x", Address("me/a.b_c", "v1.0", "x")),
        ("hf://me/saes@refs%2Fpr%2F1", Address("me/saes", "refs/pr/1")),
        ("hf://me/saes/a@b", Address("me/saes", None, "a@b")),
    ],
)
def test_an_address_is_read_and_written(text, expected):
    assert Address.parse(text) == expected
    assert str(expected) == text.rstrip("/")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hf://saes", "'saes/' is no name of a repository"),
        ("hf://", "'/' is no name"),
        ("hf://datasets/me/saes", "is of datasets; coders are in repositories of models"),
        ("hf://me/saes@/x", "has no revision behind '@'"),
        ("hf://me/sa..es", "'me/sa..es' is no name"),
        ("hf://-me/saes", "'-me/saes' is no name"),
        (f"hf://me/{'x' * 97}", "is no name"),
        ("hf://me/s%20a", "is no name"),
        ("hf://me/saes/../x", "'../x' is no path in a repository"),
        ("hf://me/saes/a//b", "'a//b' is no path in a repository"),
    ],
)
def test_what_is_none(text, message):
    with pytest.raises(HubError) as found:
        Address.parse(text)
    assert message in found.value.what
    assert found.value.where == text
    assert found.value.allowed


def test_paths_below_an_address_and_back():
    address = Address("me/saes", None, "a/b")
    assert address.within("c/d") == "a/b/c/d"
    assert address.below("a/b/c/d") == "c/d"
    assert address.below("a/bc/d") is None
    assert Address("me/saes").below("c/d") == Address("me/saes").within("c/d") == "c/d"


def test_what_is_inside():
    assert all(map(is_inside, ("", "a", "a/b.c", "...", "a:b", ".git")))
    assert not any(map(is_inside, ("/a", "a/", "a//b", ".", "..", "a/../b", "a\\b", "a\0", "C:", "C:/a")))


@pytest.mark.parametrize(
    ("pattern", "those"),
    [
        ("a.json", ["a.json"]),
        ("*.json", ["a.json", "b.json"]),
        ("x/*/a.json", ["x/y/a.json"]),
        ("**/a.json", ["a.json", "x/a.json", "x/y/a.json"]),
        ("x/**", ["x/a.json", "x/y/a.json", "x/y/z/c.npz"]),
        ("x/y/**", ["x/y/a.json", "x/y/z/c.npz"]),
        ("**/y/*", ["x/y/a.json"]),
        ("x", []),
        ("*", ["a.json", "b.json"]),
    ],
)
def test_patterns(pattern, those):
    paths = ["a.json", "b.json", "x/a.json", "x/y/a.json", "x/y/z/c.npz"]
    assert [path for path in paths if matches(path, (pattern,))] == those
