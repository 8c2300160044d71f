"""The judge ``hf`` with a Llama of random weights: wiring, and likelihoods beside a plain forward pass."""

from __future__ import annotations

import pathlib

import pytest
import torch
from qsae_evaluation_autointerp import prompts
from qsae_evaluation_autointerp.judge import Example, JudgeError, Window
from qsae_evaluation_autointerp.local import LINE, LocalJudge
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


def saved(folder: pathlib.Path, positions: int, template: str | None = None) -> str:
    """A model of 2 layers whose tokens are bytes."""
    torch.manual_seed(0)
    vocabulary = {"</s>": 0} | {byte: i for i, byte in enumerate(BYTES, 1)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>")
    fast.chat_template = template
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=positions,
        eos_token_id=0,
        bos_token_id=None,
        initializer_range=0.5,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> LocalJudge:
    return LocalJudge(saved(tmp_path_factory.mktemp("model"), 2048), "cpu")


def window(text: str) -> Window:
    return Window(tuple(map(ord, text)), tuple(text), 0)


WINDOWS = [window(text) for text in ("abc", "a much longer text than that", "", "xyz" * 9, "abc")]


def test_the_likelihood_of_yes_beside_no(judge: LocalJudge) -> None:
    """Each window alone, and each token of a label from a pass of its own."""
    found = judge.detect("letters", WINDOWS)
    for window, probability in zip(WINDOWS, found, strict=True):
        prompt = prompts.detect_one("letters", window)
        text = f"{prompt.system}\n\n{prompt.user}\n\nAnswer:"
        log_p = {}
        for label in (" Yes", " No"):
            log_p[label] = 0.0
            for end in range(len(label)):
                ids = judge.tokenizer(text + label[:end])["input_ids"]
                logits = judge.model(torch.tensor([ids])).logits[0, -1].double().log_softmax(0)
                (token,) = judge.tokenizer(label[end])["input_ids"]
                log_p[label] += float(logits[token].detach())
        expected = 1 / (1 + torch.tensor(log_p[" No"] - log_p[" Yes"]).exp())
        assert probability == pytest.approx(float(expected), rel=1e-4)
    assert found[0] == pytest.approx(found[4], rel=1e-4)
    assert len({round(p, 3) for p in found if p is not None}) == 4
    assert judge.graded


def test_a_model_that_gives_all_logits_says_the_same(
    judge: LocalJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = judge.detect("letters", WINDOWS)
    assert judge._keeps_some
    monkeypatch.setattr(judge, "_keeps_some", False)
    assert judge.detect("letters", WINDOWS) == pytest.approx(found, rel=1e-6)


def test_an_explanation_is_the_first_line(judge: LocalJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    example = Example(window("abc"), (0.0, 1.0, 0.0))
    label = judge.explain([example])
    assert "\n" not in label
    assert judge.explain([example]) == label

    def says(ids: torch.Tensor, **options: object) -> torch.Tensor:
        assert options["max_new_tokens"] == LINE
        answer = judge.tokenizer("\n the letter b \nand more")["input_ids"]
        return torch.cat([ids, torch.tensor([answer])], dim=1)

    monkeypatch.setattr(judge.model, "generate", says)
    assert judge.explain([example]) == "the letter b"


def test_a_chat_model_is_asked_in_its_template(tmp_path: pathlib.Path) -> None:
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    judge = LocalJudge(saved(tmp_path / "m", 2048, template), "cpu")
    prompt = prompts.detect_one("letters", WINDOWS[0])
    text = judge.tokenizer.decode(judge._ids(prompt, "Answer:"))
    assert text == f"<user>{prompt.system}\n\n{prompt.user}<assistant>"
    assert all(p is not None and 0 < p < 1 for p in judge.detect("letters", WINDOWS))


def test_a_question_that_does_not_fit(tmp_path: pathlib.Path) -> None:
    judge = LocalJudge(saved(tmp_path / "m", 128), "cpu")
    with pytest.raises(JudgeError, match="the judge has 128 positions"):
        judge.detect("letters", WINDOWS)
    with pytest.raises(JudgeError, match="set top and ranks"):
        judge.explain([Example(window("abc"), (0.0, 1.0, 0.0))])


def test_no_such_model(tmp_path: pathlib.Path) -> None:
    with pytest.raises(JudgeError, match="there is no causal language model"):
        LocalJudge(str(tmp_path / "nothing"), "cpu")
