"""Run by the Python of an environment with sae-dashboard:

in_sae_dashboard.py run SAE MODEL TOKENS OUT    its runner's batches of a local SAE, model and tokens
in_sae_dashboard.py read FOLDER                 its own classes read the batches of a folder
"""

import json
import pathlib
import sys

import transformer_lens.loading_from_pretrained as loading
from sae_dashboard.neuronpedia import neuronpedia_runner as runner_module
from sae_dashboard.neuronpedia.neuronpedia_dashboard import NeuronpediaDashboardBatch
from sae_dashboard.neuronpedia.neuronpedia_runner import NeuronpediaRunner, NeuronpediaRunnerConfig
from sae_lens import HookedSAETransformer
from safetensors.torch import load_file
from transformers import PreTrainedTokenizerFast


def run(sae, model, tokens, out):
    """With nothing replaced but where it gets the language model and the tokens, which is the hub."""
    if json.loads((pathlib.Path(sae) / "cfg.json").read_text())["architecture"] == "qsae":
        import qsae_in_saelens  # noqa: F401
    tokens = load_file(tokens)["tokens"]
    configured = loading.convert_hf_model_config

    def with_rope(name, **options):  # TransformerLens has 10,000 for every Llama that it does not know
        written = json.loads((pathlib.Path(name) / "config.json").read_text())
        theta = written.get("rope_parameters", written)["rope_theta"]  # of later versions of transformers
        return configured(name, **options) | {"rotary_base": theta}

    loading.convert_hf_model_config = with_rope
    loading.get_official_model_name = lambda name: name  # a folder is on no list

    class Local:
        @staticmethod
        def from_pretrained(model_name, **options):
            return HookedSAETransformer.from_pretrained(model, tokenizer=tokenizer_of(model), **options)

    class Runner(NeuronpediaRunner):
        def _setup_activation_store(self):
            self.activations_store = None
            self.cached_activations_dir = pathlib.Path(out) / "cached"

        def create_output_directory(self):
            return out  # without a folder of the model's name, which may be a path

        def get_tokens(self):
            return tokens

    runner_module.HookedSAETransformer = Local
    config = NeuronpediaRunnerConfig(
        sae_set="theirs",
        sae_path=sae,
        outputs_dir=out,
        from_local_sae=True,
        huggingface_dataset_path="local",
        n_prompts_total=len(tokens),
        n_tokens_in_prompt=tokens.shape[1],
        n_features_at_a_time=64,
        sae_dtype="float32",
        model_dtype="float32",
        ignore_positions=[0],
    )
    made = Runner(config)
    made.run()
    text = json.dumps(made.vocab_dict)
    (pathlib.Path(out) / "vocabulary.json").write_text(text, encoding="utf-8")


def tokenizer_of(model):
    """By this class: that which a later version of transformers names may not be known here. TransformerLens
    takes one that adds BOS as it is."""
    return PreTrainedTokenizerFast.from_pretrained(model, add_bos_token=True)


def read(folder):
    """Fails where they do not have a field, or not this one."""
    for file in sorted(pathlib.Path(folder).glob("batch-*.json")):
        data = json.loads(file.read_text(encoding="utf-8"))
        given = NeuronpediaDashboardBatch(**data).to_dict()
        assert given == data, file
        assert list(given["features"][0]) == list(data["features"][0]), file
        print(file.name, len(given["features"]))


if __name__ == "__main__":
    {"run": run, "read": read}[sys.argv[1]](*sys.argv[2:])
