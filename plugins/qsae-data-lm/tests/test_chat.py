"""Conversations: what a template makes of them, which tokens count, and what is refused."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from qsae_data_lm import LmConfig
from qsae_data_lm.chat import ChatTemplate, find_contents
from qsae_data_lm.chat_tokens import inside
from qsae_data_lm.corpus import Document
from qsae_data_lm.documents import Form, Numbered
from qsae_data_lm.messages import messages_of
from qsae_data_lm.places import BUILTIN
from qsae_data_lm.source import LmSource
from qsae_data_lm.tokens import TextTokenizer
from tokenizers.processors import ByteLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from qsae_core.errors import ConfigError, DataError

pytest.importorskip("datasets")

CHATML = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
)
"""The form of SmolLM2-Instruct's template, its default system message included."""
TRIMMED = "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] | trim }}\n{% endfor %}"
"""The form of Llama-3's: BOS at the beginning, contents without the space around them."""

System, User, Assistant = (
    lambda text, role=role: {"role": role, "content": text} for role in ("system", "user", "assistant")
)
TALK = [User("What is 2 + 2?"), Assistant("It is 4."), User("Thanks, and 3 + 3?"), Assistant("That is 6!")]


@pytest.fixture(scope="module")
def chatty() -> PreTrainedTokenizerFast:
    """The built-in tokenizer with two more special tokens and a template."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(BUILTIN)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHATML
    return tokenizer


@pytest.fixture(scope="module")
def template_file(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    folder = tmp_path_factory.mktemp("templates")

    def write(text: str) -> str:
        path = folder / f"{abs(hash(text))}.jinja"
        path.write_text(text)
        return str(path)

    return write


def spans_of(document: Document | None) -> list[str]:
    assert document is not None
    return [document.text[start:end] for start, end in document.spans or ()]


def test_what_counts_is_what_was_said(chatty: PreTrainedTokenizerFast) -> None:
    document = ChatTemplate(chatty, "own", "all").document(TALK, "x: row 0")
    assert document is not None
    assert document.text == chatty.apply_chat_template(TALK, tokenize=False)
    assert document.text.startswith(
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWhat is 2 + 2?"
    )
    assert spans_of(document) == [message["content"] for message in TALK]


@pytest.mark.parametrize(
    ("roles", "expected"),
    [
        ("assistant", ["It is 4.", "That is 6!"]),
        ("system,user", ["Say little.", "What is 2 + 2?", "Thanks, and 3 + 3?"]),
        ("critic", []),
    ],
)
def test_roles(chatty: PreTrainedTokenizerFast, roles: str, expected: list[str]) -> None:
    document = ChatTemplate(chatty, "own", roles).document([System("Say little."), *TALK], "x")
    assert spans_of(document) == expected


def test_the_key_is_the_same_under_every_template(
    chatty: PreTrainedTokenizerFast, template_file: Callable[[str], str]
) -> None:
    share_gpt = [{"from": "human", "value": "What is 2 + 2?"}, {"from": "gpt", "value": "It is 4."}]
    templates = [ChatTemplate(chatty, name, "all") for name in ("own", template_file(TRIMMED))]
    found = [t.document(talk, "x") for t in templates for talk in (TALK[:2], share_gpt)]
    assert len({document.key for document in found if document}) == 1
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_empty_and_repeated_contents_have_their_own_places(chatty: PreTrainedTokenizerFast) -> None:
    """A content that occurs in the template, or in another message, is not mistaken for it."""
    talk = [User("user"), Assistant(""), User("user"), Assistant("user\n"), User("<|im_end|>")]
    document = ChatTemplate(chatty, "own", "all").document(talk, "x")
    assert spans_of(document) == ["user", "user", "user\n", "<|im_end|>"]
    assert document is not None
    first = document.text.index("user\nuser<") + len("user\n")
    assert document.spans is not None
    assert document.spans[0] == (first, first + 4)


def test_contents_that_the_template_trims(
    chatty: PreTrainedTokenizerFast, template_file: Callable[[str], str]
) -> None:
    chat = ChatTemplate(chatty, template_file(TRIMMED), "all")
    chat.look_at([("x", TALK)])
    document = chat.document([User("  a question \n"), Assistant(" \n"), User("b")], "x")
    assert document is not None
    assert document.text == "[user] a question\n[assistant] \n[user] b\n"  # BOS is the frame's
    assert spans_of(document) == ["a question", "b"]
    assert chat.opens_with_bos


@given(st.lists(st.text(alphabet="ab \n", max_size=5), min_size=1, max_size=5), st.data())
def test_contents_are_found_however_they_are_stripped(contents: list[str], data: st.DataObject) -> None:
    literals = data.draw(
        st.lists(st.text(alphabet="a \n", max_size=3), min_size=len(contents) + 1, max_size=len(contents) + 1)
    )
    forms = [data.draw(st.sampled_from([c, c.strip(), c.lstrip(), c.rstrip()])) for c in contents]
    text = literals[0] + "".join(f + literal for f, literal in zip(forms, literals[1:], strict=True))
    spans = find_contents(text, literals, contents)
    assert isinstance(spans, list)
    at = 0
    for (start, end), literal, content in zip(spans, literals, contents, strict=False):
        assert text[at:start] == literal
        assert text[start:end] in (content, content.strip(), content.lstrip(), content.rstrip())
        at = end
    assert text[at:] == literals[-1]


def test_a_long_conversation(chatty: PreTrainedTokenizerFast) -> None:
    talk = TALK * 600
    assert len(spans_of(ChatTemplate(chatty, "own", "assistant").document(talk, "x"))) == 1200


def test_tokens_inside_by_hand() -> None:
    """Of `ab cd`, with `b ` and `d` counted: a token across the edge does not count, an empty one neither."""
    offsets = [(0, 1), (1, 3), (1, 2), (3, 4), (4, 5), (2, 4), (5, 5)]
    assert inside(offsets, 5, [(1, 3), (4, 5)]).tolist() == [False, True, True, False, True, False, False]


@pytest.mark.parametrize("roles", ["all", "assistant", "user"])
def test_tokens_are_the_templates_own_and_counted_ones_spell_what_was_said(
    chatty: PreTrainedTokenizerFast, roles: str
) -> None:
    tokens = TextTokenizer(chatty, 64, causal=True, keep=False, form=Form("nothing", spell_special=True))
    document = ChatTemplate(chatty, "own", roles).document(TALK, "x")
    assert document is not None
    (entry,) = tokens.stream([Numbered(1, 0, document)])
    assert entry.tokens.tolist() == chatty.apply_chat_template(TALK, tokenize=True, return_dict=False)
    assert entry.counted is not None
    said = [m["content"] for m in TALK if roles in ("all", m["role"])]
    runs = torch.tensor(entry.counted).int().diff(prepend=torch.tensor([0])).clamp(min=0).cumsum(0)
    for number, text in enumerate(said, start=1):
        ids = entry.tokens[entry.counted & (runs.numpy() == number)]
        assert chatty.decode(ids) == text
    assert int(runs[-1]) == len(said)


def test_a_space_of_the_templates_in_a_messages_token_does_not_count(
    chatty: PreTrainedTokenizerFast, template_file: Callable[[str], str]
) -> None:
    """`: It`: the built-in tokenizer joins the space with the word, so that word is half the template's."""
    template = template_file("{% for m in messages %}: {{ m['content'] }}{% endfor %}")
    document = ChatTemplate(chatty, template, "all").document([Assistant("It is 4.")], "x")
    assert document is not None
    # GPT-2's, which leaves the space out of what it says of a token's place
    trimming = chatty.backend_tokenizer.post_processor = ByteLevel(trim_offsets=True)
    (entry,) = TextTokenizer(chatty, 64, causal=True, keep=False, form=Form(spell_special=True)).stream(
        [Numbered(1, 0, document)]
    )
    assert chatty.backend_tokenizer.post_processor.trim_offsets == trimming.trim_offsets
    assert entry.counted is not None
    assert [chatty.decode([i]) for i in entry.tokens[~entry.counted]] == [":", " It"]
    assert chatty.decode(entry.tokens[entry.counted]) == " is 4."


@pytest.mark.parametrize(
    ("options", "separator"),
    [
        ({}, "<|im_end|>"),
        ({"form": Form("begin")}, "<|bos|>"),
        ({"form": Form("nothing")}, None),
        ({"form": Form("nothing"), "apart": True}, "<|bos|>"),
        ({"apart": True}, "<|bos|>"),
    ],
)
def test_what_stands_between_documents(
    chatty: PreTrainedTokenizerFast, options: dict[str, Any], separator: str | None
) -> None:
    other = copy.deepcopy(chatty)
    other.eos_token = "<|im_end|>"
    frame = TextTokenizer(other, 64, causal=True, keep=False, **options).frame
    assert frame.first == other.bos_token_id
    assert frame.separator == (None if separator is None else other.convert_tokens_to_ids(separator))


def test_a_template_is_rendered_in_a_sandbox(
    chatty: PreTrainedTokenizerFast, template_file: Callable[[str], str], tmp_path: Path
) -> None:
    """Ways out that jinja's plain environment leaves open: attributes with underscores, and changing what it
    was given."""
    from jinja2 import Environment

    ways = (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.system('touch " + str(tmp_path / "ran") + "') }}",
        "{{ messages.append(1) }}",
    )
    for way in ways:
        Environment().from_string(way).render(messages=[])
        chat = ChatTemplate(chatty, template_file(way), "all")
        (tmp_path / "ran").unlink(missing_ok=True)
        with pytest.raises(DataError, match="the chat template does not render this conversation") as caught:
            chat.document(TALK, "x: row 3")
        assert caught.value.where == "x: row 3"
        assert "unsafe" in caught.value.what
        assert not (tmp_path / "ran").exists()


def test_templates_that_cannot_be_had(
    chatty: PreTrainedTokenizerFast,
    tokenizer: PreTrainedTokenizerFast,
    template_file: Callable[[str], str],
    tmp_path: Path,
) -> None:
    with pytest.raises(DataError, match="tokenizer has no chat template") as caught:
        ChatTemplate(tokenizer, "own", "all")
    assert caught.value.allowed == "own, or the path of a jinja file"
    with pytest.raises(DataError, match=f"{tmp_path / 'none'} cannot be read"):
        ChatTemplate(tokenizer, str(tmp_path / "none"), "all")
    today = "{% set date_string = date_string | default(strftime_now('%d %b %Y')) %}{{ date_string }}"
    document = ChatTemplate(chatty, template_file(today), "all").document([User("")], "x")
    assert document is not None
    assert document.text == "26 Jul 2024"
    with pytest.raises(DataError, match="writes today's date") as caught:
        ChatTemplate(chatty, template_file("{{ strftime_now('%d %b %Y') }}"), "all")
    assert "replace strftime_now" in str(caught.value.next)


@pytest.mark.parametrize(
    ("template", "number", "how"),
    [
        (
            "{% for m in messages if m['role'] != 'assistant' %}{{ m['content'] }}{% endfor %}",
            1,
            "it leaves it out",
        ),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", 0, "it changes it"),
        (
            "{% for m in messages %}{{ '!' if '3 + 3' in m['content'] else m['content'] }}{% endfor %}",
            2,
            "it changes it",
        ),
    ],
)
def test_a_template_that_hides_whose_text_is_whose(
    chatty: PreTrainedTokenizerFast, template_file: Callable[[str], str], template: str, number: int, how: str
) -> None:
    chat = ChatTemplate(chatty, template_file(template), "all")
    with pytest.raises(DataError, match=f"of message {number} \\({TALK[number]['role']}\\), {how}") as caught:
        chat.document(TALK, "x: row 3")
    assert caught.value.where == "x: row 3"


def test_a_template_that_refuses_a_role(
    chatty: PreTrainedTokenizerFast, template_file: Callable[[str], str]
) -> None:
    chat = ChatTemplate(
        chatty, template_file("{{ raise_exception('Unknown role: ' + messages[0]['role']) }}"), "all"
    )
    with pytest.raises(DataError, match=r"row 3: the chat template does not render .*: Unknown role: user"):
        chat.document(TALK, "x: row 3")


@pytest.mark.parametrize(
    ("value", "where", "what"),
    [
        ("text", "x: row 3", "the conversation is a str, not a list of messages"),
        ([User("a"), "text"], "x: row 3: message 1", "it is of type str"),
        ([{"text": "a", "name": "b"}], "x: row 3: message 0", "it has no role; its keys: text, name"),
        ([{"role": "user"}], "x: row 3: message 0", "its content is of type NoneType, not text"),
        (
            [User("a"), {"from": "gpt", "value": 3}],
            "x: row 3: message 1",
            "its value is of type int, not text",
        ),
        ([{"role": 1, "content": "a"}], "x: row 3: message 0", "its role is of type int, not text"),
    ],
)
def test_values_that_are_no_conversation(value: Any, where: str, what: str) -> None:
    with pytest.raises(DataError) as caught:
        messages_of(value, "x: row 3")
    assert (caught.value.where, caught.value.what) == (where, what)
    assert "{from, value}" in str(caught.value.allowed)


def test_what_a_message_holds_besides_is_given_to_the_template(
    chatty: PreTrainedTokenizerFast, template_file: Callable[[str], str]
) -> None:
    text = "{% for m in messages %}{{ m['name'] or '-' }}: {{ m['content'] }}{% endfor %}"
    talk = [
        {"role": "user", "content": "a", "name": None},
        {"role": "assistant", "content": None, "name": "f()"},
    ]
    document = ChatTemplate(chatty, template_file(text), "all").document(talk, "x")
    assert document is not None
    assert document.text == "-: af(): "


# -- the data source ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory: pytest.TempPathFactory, chatty: PreTrainedTokenizerFast) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(chatty),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
    )
    directory = tmp_path_factory.mktemp("models") / "chat"
    LlamaForCausalLM(config).save_pretrained(directory)
    chatty.save_pretrained(directory)
    return directory


def talks(n: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"talk {i}",
            "messages": [User(f"What is {i} + 1?"), Assistant(f"It is {i + 1}, and that is it.")],
        }
        for i in range(n)
    ]


Make = Callable[..., LmSource]


@pytest.fixture
def make(chat_model: Path, tmp_path: Path) -> Make:
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row) + "\n" for row in talks(300)))

    def build(**options: Any) -> LmSource:
        defaults = {"model": str(chat_model), "dataset": str(tmp_path / "x.jsonl"), "chat_template": "own"}
        defaults |= {"context": 48, "buffer_tokens": 480, "held_out_share": 0.2, "dtype": "fp32"}
        return LmSource(LmConfig(**{**defaults, **options}))

    return build


def spelled(source: LmSource, ids: torch.Tensor) -> str:
    return source.language_model().decode(ids)


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("apart", [True, False])
def test_training_and_held_out_vectors_are_those_of_the_roles_alone(
    make: Make, streaming: bool, apart: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    source = make(roles="assistant", streaming=streaming, separate_documents=apart)
    described = source.describe()
    assert (described["dataset_column"], described["roles"]) == ("messages", "assistant")
    for batch, vectors in source.held_out_contexts(300, 96):
        assert len(vectors) == int(batch.counted.sum())
        for ids, counted in zip(batch.ids, batch.counted, strict=True):
            text = spelled(source, ids[counted])
            assert "What" not in text
            assert "is" in text
            assert "<|im" not in text
            assert "<|im_start|>" in spelled(source, ids)
    tokens = source.next_batch(2000).token_ids
    assert not set(spelled(source, [i]) for i in tokens.unique().tolist()) & {
        "What",
        "user",
        "assistant",
        "<|im_end|>",
    }
    resumed = make(roles="assistant", streaming=streaming, separate_documents=apart)
    resumed.load_state_dict(json.loads(json.dumps(source.state_dict())))
    assert torch.equal(resumed.next_batch(300).x, source.next_batch(300).x)


def test_conversations_are_not_joined_by_tokens_of_the_tokenizer(make: Make) -> None:
    """The template ends each; only the context begins with BOS."""
    source = make(roles="all")
    ids = next(source.contexts(20))[0].ids
    assert bool((ids[:, 0] == 0).all())
    assert not bool((ids[:, 1:] == 0).any())
    text = "".join(spelled(source, row[1:]) for row in ids)
    assert text.startswith("<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nWhat is ")
    assert "that is it.<|im_end|>\n<|im_start|>system\nBe kind." in text


def test_bos_of_the_template_separates_conversations(make: Make, template_file: Callable[[str], str]) -> None:
    source = make(chat_template=template_file(TRIMMED))
    ids = next(source.contexts(20))[0].ids
    text = "".join(spelled(source, row[1:]) for row in ids)
    assert text.count("[user]") == text.count("<|bos|>") + 1
    assert "that is it.\n<|bos|>[user] What is" in text


@pytest.mark.parametrize(
    ("options", "error", "what"),
    [
        (
            {"roles": "asistant"},
            DataError,
            "no message of the first 300 .* has the role 'asistant'",
        ),
        ({"dataset_column": "id"}, DataError, "row 0: the conversation is a str, not a list of messages"),
        ({"dataset": None}, ConfigError, "chat_template is given, and there is no dataset"),
        (
            {"chat_template": None, "roles": "user"},
            ConfigError,
            "roles is 'user', and there is no chat",
        ),
    ],
)
def test_options_that_do_not_fit(
    make: Make, options: dict[str, Any], error: type[Exception], what: str
) -> None:
    with pytest.raises(error, match=what):
        make(**options)
    with pytest.raises(ValidationError, match="roles"):
        LmConfig(roles="user, assistant")
    assert LmConfig(roles=["user", "assistant"]).roles == "user,assistant"


def test_conversations_that_are_taken_for_text(make: Make) -> None:
    source = make(chat_template=None, dataset_column="messages")
    with pytest.raises(DataError, match="'messages' holds a value of type list, not text") as caught:
        source.next_batch(1)
    assert "conversations need --chat-template own" in str(caught.value.next)


def test_columns_of_conversations(make: Make, tmp_path: Path) -> None:
    rows = [{"messages": r["messages"], "others": r["messages"]} for r in talks(3)]
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match="several columns of conversations, messages, others") as caught:
        make(dataset=str(tmp_path / "two.jsonl"))
    assert caught.value.next == "--data.dataset-column messages"
    (tmp_path / "text.jsonl").write_text(
        "".join(json.dumps({"text": f"{n} " * 50}) + "\n" for n in range(90))
    )
    with pytest.raises(DataError, match="has no conversations; its columns: text"):
        make(dataset=str(tmp_path / "text.jsonl"))
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps({"m": r["messages"]}) + "\n" for r in talks(90)))
    with pytest.raises(DataError, match="has no column of text") as caught:
        make(dataset=str(tmp_path / "talk.jsonl"), chat_template=None)
    assert caught.value.next == "--chat-template own, for the conversations in m"


def test_a_role_that_says_nothing(make: Make, tmp_path: Path) -> None:
    rows = [{"messages": [User(f"Question {i}, which nobody answers."), Assistant("")]} for i in range(60)]
    (tmp_path / "mute.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = make(dataset=str(tmp_path / "mute.jsonl"), roles="assistant")
    with pytest.raises(DataError, match="no position of the training text counts"):
        source.next_batch(1)
    for read in (source.held_out, source.held_out_contexts):
        with pytest.raises(DataError, match="no position of the held-out text counts") as caught:
            list(read(10, 10))
    assert caught.value.next == "--roles all"


def test_special_tokens_of_a_template_need_an_embedding(make: Make, chat_model: Path, tmp_path: Path) -> None:
    """A chat tokenizer beside a base model: plain text has none of its tokens, conversations do."""
    base = Path(shutil.copytree(chat_model, tmp_path / "base"))
    config = LlamaConfig.from_pretrained(base, vocab_size=4096)
    LlamaForCausalLM(config).save_pretrained(base)
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({"text": f"{n} words. " * 9}) + "\n" for n in range(90))
    )
    assert (
        len(make(model=str(base), dataset=str(tmp_path / "t.jsonl"), chat_template=None).next_batch(9)) == 9
    )
    with pytest.raises(DataError, match="gives ids up to 4097, but the model embeds 4096 tokens"):
        make(model=str(base))


def test_a_slow_tokenizer_is_refused(
    chatty: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(chatty), "is_fast", False)
    with pytest.raises(DataError, match="does not say where in a text its tokens stand"):
        ChatTemplate(chatty, "own", "all")


def test_blocks_that_are_only_read_have_no_outlying_norms(make: Make) -> None:
    """Blocks of one short context, of which some hold nothing that counts."""
    source = make(roles="assistant", context=16, buffer_tokens=16, max_norm_multiple=50)
    counts = [int(tokens.counted.sum()) for tokens, _ in source.contexts(1)]
    assert 0 in counts
    assert len(source.next_batch(sum(counts))) == sum(counts)
