"""tiny_model: the same files again, a tokenizer that loses nothing, weights that load."""

import json
import math
import unicodedata

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from data_prep import sql_demo
from data_prep.__main__ import main
from data_prep._sql_demo.questions import draw
from data_prep.tiny_model import CONTEXT

TALK = [
    {"role": "system", "content": "Kürze! <|im_end|> {{ braces }} {% raw %}"},
    {"role": "user", "content": "  Wie viele?\n\n"},
    {"role": "assistant", "content": "```sql\nSELECT 1\n```"},
    {"role": "user", "content": "多少 🙂"},
    {"role": "assistant", "content": "siebenundzwanzig"},
]


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def model(tiny_model):
    return AutoModelForCausalLM.from_pretrained(tiny_model)


def test_the_same_options_give_the_same_files(tiny_model, tmp_path):
    """In another process (the fixture's), too."""
    out = tmp_path / "again"
    assert main(["tiny_model", "--out", str(out)]) == 0
    names = sorted(p.name for p in tiny_model.iterdir())
    assert names == sorted(p.name for p in out.iterdir())
    for name in names:
        assert (out / name).read_bytes() == (tiny_model / name).read_bytes(), name


def test_another_seed_gives_other_weights(model, tmp_path):
    out = tmp_path / "other"
    options = ["--seed", "1", "--layers", "1", "--hidden", "32", "--vocab", "300"]
    assert main(["tiny_model", *options, "--out", str(out)]) == 0
    other = AutoModelForCausalLM.from_pretrained(out)
    assert other.config.num_hidden_layers == 1 and other.config.vocab_size == 300
    ours, theirs = (m.get_input_embeddings().weight[:300, :32] for m in (model, other))
    assert not torch.allclose(ours, theirs)


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60))
def test_any_text_round_trips(tokenizer, text):
    """AutoTokenizer makes a Qwen2Tokenizer of it, which normalises to NFC."""
    text = unicodedata.normalize("NFC", text)
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


@pytest.mark.parametrize("text", ["Größe naïve 大きさ 🙂🏽 \u202e\0", " \n\t  x  ", "a_b1 12.5e-3"])
def test_these_texts_round_trip(tokenizer, text):
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text and max(ids) < len(tokenizer)


def test_words_of_the_task_are_single_tokens(tokenizer):
    for word in (" SELECT", " FROM", " WHERE", " COUNT", " customer", " city"):
        assert len(tokenizer.encode(word, add_special_tokens=False)) == 1, word


@pytest.mark.parametrize("turn", [2, 4])
def test_the_prompt_is_a_prefix_of_the_whole_conversation(tokenizer, turn):
    """As text and as tokens: what the trainer masks is what the model was asked with."""
    both = []
    for tokenize in (False, True):
        options = {"tokenize": tokenize, "return_dict": False}
        prompt = tokenizer.apply_chat_template(TALK[:turn], add_generation_prompt=True, **options)
        whole = tokenizer.apply_chat_template(TALK[: turn + 1], **options)
        assert whole[: len(prompt)] == prompt
        both.append(whole[len(prompt) :])
    end = tokenizer.eos_token
    assert both[0] == f"{TALK[turn]['content']}{end}\n"
    assert tokenizer.decode(both[1]) == both[0] and both[1].count(tokenizer.eos_token_id) == 1


def test_weights_load_as_any_model(tiny_model, model, tokenizer):
    card = json.loads((tiny_model / "card.json").read_text())
    assert card["parameters"] == model.num_parameters()
    # verl's weight sync into vLLM needs them to be equal.
    assert model.config.vocab_size == len(tokenizer) == card["vocabulary"]
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    assert model.generation_config.eos_token_id == model.config.eos_token_id
    assert model.config.eos_token_id == tokenizer.eos_token_id != tokenizer.pad_token_id
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_every_weight_learns_and_it_generates(model, tokenizer):
    text = tokenizer.apply_chat_template(TALK[1:3], tokenize=False)
    batch = tokenizer(text, return_tensors="pt")["input_ids"]
    loss = model(input_ids=batch, labels=batch).loss
    # Random weights guess: about as many nats as a uniform choice takes.
    assert 0.8 < loss.item() / math.log(len(tokenizer)) < 1.2
    loss.backward()
    for name, weight in model.named_parameters():
        assert torch.isfinite(weight.grad).all() and weight.grad.abs().sum() > 0, name
    model.zero_grad()
    made = model.generate(batch, max_new_tokens=5, do_sample=False)
    assert made[0, : batch.shape[1]].tolist() == batch[0].tolist()
    assert 1 <= made.shape[1] - batch.shape[1] <= 5


def test_the_demo_fits_into_its_context(tokenizer):
    questions = draw(sql_demo.content(0), sql_demo.LEVELS, 0)
    for _, question in zip(range(300), questions, strict=False):
        talk = [*sql_demo.prompt(question), sql_demo.answer(question.sql)]
        assert len(tokenizer.apply_chat_template(talk, return_dict=False)) <= CONTEXT


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--hidden", "48"], "--hidden 48 is not a multiple of 32"),
        (["--hidden", "0"], "--hidden 0 is not a multiple of 32"),
        (["--layers", "0"], "--layers must be 1 or more"),
        (["--vocab", "258"], "--vocab 259 or more"),
    ],
)
def test_sizes_that_cannot_be_are_told_in_a_line(tmp_path, capsys, options, said):
    assert main(["tiny_model", *options, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
