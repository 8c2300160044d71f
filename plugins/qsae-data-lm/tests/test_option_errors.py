"""What is said of options that do not fit: in words, with every place where they stand."""

import pytest
from qsae_data_lm.text_files import read_text

from qsae_core.config.layers import Layer
from qsae_core.config.run import resolve
from qsae_core.errors import ConfigError, DataError
from qsae_core.plugins.records import load_plugins

REGISTRY = load_plugins().registry


def refusal(*options, name="coder.json"):
    """Of options in a record, and options in flags."""
    record = Layer({"sae": {"use": "topk"}, "data": {"use": "lm", **options[0]}}, name, fallback=True)
    with pytest.raises(ConfigError) as caught:
        resolve([record, *(Layer({"data": more}, style="flags") for more in options[1:])], REGISTRY)
    return str(caught.value)


@pytest.mark.parametrize("layers", ["foo", "1,", "3-", "all"])
def test_layers_are_described_in_words(layers):
    message = refusal({}, {"layers": layers})
    assert f"--data.layers: Input should be of the form that is allowed (got '{layers}')" in message
    assert "allowed: a list of layer numbers and ranges, such as 4,5,6 or 4-6; or middle\n" in message
    assert "^" not in message


def test_an_option_that_a_record_excludes():
    message = refusal({"layers": "0,1"}, {"layer": 2})
    assert message.startswith("--data.layer and coder.json: data.layers: layer and layers cannot be given")
    assert "--data.layers changes what coder.json: data.layers says" in message
    assert "--set data.layers=null drops it" in message


def test_options_of_one_command_line_that_exclude_each_other():
    message = refusal({}, {"text": "a.txt", "dataset": "b"})
    assert message.startswith("--data.text and --data.dataset: text and dataset cannot be given together")
    assert message.endswith("allowed: one of them\n  next:    leave one of them out")


def test_one_place_and_two_exclude_each_other():
    message = refusal({}, {"layer": 2, "target_site": "mlp_out"})
    assert message.startswith("--data.layer and --data.target-site: layer and target_site cannot be given")
    assert "source_layer, source_site, target_layer and target_site, for a transcoder" in message


def test_a_text_that_is_not_there(tmp_path):
    for path, what in ((tmp_path / "none", "there is no file or folder"), (tmp_path, "no text in")):
        with pytest.raises(DataError, match=f"data.text: {what} {path}") as caught:
            read_text(str(path))
        assert caught.value.allowed == "a file of UTF-8 text, or a folder that holds such files"
        assert "with --text" in caught.value.next
