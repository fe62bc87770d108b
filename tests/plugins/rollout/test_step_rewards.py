"""Step scores on tokens: every kind of tokenizer, sampled ids that no text would be encoded to."""

import json
import random
import time

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import BertTokenizer, ByT5Tokenizer, LlamaTokenizer, PreTrainedTokenizerFast

from data_prep.tiny_model import conversations, make_tokenizer
from plugins.rollout import step_rewards
from plugins.rollout.step_rewards import place

CORPUS = [
    "WITH a AS (SELECT name FROM item WHERE price > 2)\nSELECT count(*) FROM a",
    "First, let us count: how many items, isn't it?\n\n1. the answer is 42.",
    "我们先数一数数据库里的项目。 🙂",
] * 20
TEXTS = [
    "WITH a AS (\n  SELECT id FROM item)\nSELECT * FROM a;",
    "我们想 🙂🙃 然后: 数据库",
    "👩‍👩‍👧‍👦 family, 🏳️‍🌈 flag; e\u0301 a\u0308\u0323 x",
    "tabs\t\tand   spaces \n\n\n end ",
    " a . b , isn't 'm ?",
    "العربية हिन्दी \u200b\ufeff \ufffd real",
]
END, START = "<|end|>", "<|start|>"


def fast(backend, special=(END, START), **options):
    backend.add_special_tokens(list(special))
    return PreTrainedTokenizerFast(tokenizer_object=backend, **options)


def gpt2(folder):
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_tokens(["<think>", AddedToken("<思 考>", special=False)])
    return fast(backend)


def pieces(folder, kind):
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_prefix=str(folder / "tokenizer"), model_type=kind,
        vocab_size=420, byte_fallback=True, minloglevel=2, hard_vocab_limit=False,
    )  # fmt: skip
    return folder / "tokenizer.model"


def llama(folder):
    pieces(folder, "bpe")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    return LlamaTokenizer.from_pretrained(folder)


def unigram(folder):
    model = sentencepiece.SentencePieceProcessor(model_file=str(pieces(folder, "unigram")))
    vocab = [(model.id_to_piece(i), model.get_score(i)) for i in range(len(model))]
    backend = Tokenizer(models.Unigram(vocab, model.unk_id(), byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    return fast(backend)


def bert(folder):
    words = sorted({word for text in CORPUS for word in text.lower().split()} | set("abcxyz.,?'!"))
    letters = [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789()*:>"]
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters]
    vocab = {word: number for number, word in enumerate(dict.fromkeys(known))}
    return BertTokenizer(vocab=vocab, clean_up_tokenization_spaces=True)


MAKERS = {
    "tiny_model": lambda folder: make_tokenizer(conversations(0, 200), 400),
    "gpt2": gpt2,
    "llama": llama,
    "unigram": unigram,
    "bert": bert,
    "byt5": lambda folder: ByT5Tokenizer(extra_ids=3),
}
TRACED = {"tiny_model", "gpt2", "llama", "unigram"}  # by their bytes; the others by bisection


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    made = {}
    for name, maker in MAKERS.items():
        made[name] = maker(tmp_path_factory.mktemp(name))
    return lambda name: made[name]  # which shows in a failure as a function


def decode(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True)


def first_complete(tokenizer, ids, end):
    """The oracle: the first token after which the decoded text reaches `end` as it stays."""
    text = decode(tokenizer, ids)
    for number in range(len(ids)):
        if decode(tokenizer, ids[: number + 1])[:end] == text[:end]:
            return number
    raise AssertionError


def token_of(tokenizer, ids, start, end):
    rewards = place(tokenizer, ids, 0.0, [(start, end, 1.0)])
    assert len(rewards) == len(ids) and sum(rewards) == 1.0
    return rewards.index(1.0)


def check(tokenizer, ids):
    """Every end in the text against the oracle; U+FFFD has its own test, here only its order."""
    text = decode(tokenizer, ids)
    found = [token_of(tokenizer, ids, at, at + 1) for at in range(len(text))]
    assert found == sorted(found)
    for at, number in enumerate(found):
        if text[at] != "\ufffd":
            assert number == first_complete(tokenizer, ids, at + 1), (at, text)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", MAKERS)
def test_text(tokenizers, name, text):
    tokenizer = tokenizers(name)
    check(tokenizer, tokenizer(text, add_special_tokens=False).input_ids)


@pytest.mark.parametrize("name", MAKERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_ids_that_no_text_gives(tokenizers, name, data):
    tokenizer = tokenizers(name)
    token = st.integers(0, len(tokenizer) + 3)  # a model's vocabulary may be larger
    pieces = st.sampled_from(TEXTS).map(lambda text: tokenizer(text).input_ids[:9])
    parts = st.one_of(st.lists(token, max_size=12), pieces)
    if name == "byt5":
        token = st.integers(0, len(tokenizer) - 1)
        parts = pieces  # bytes that are no character vanish, and with them the order
    ids = [number for part in data.draw(st.lists(parts, max_size=5)) for number in part]
    check(tokenizer, ids)


@pytest.mark.parametrize("name", MAKERS)
def test_kinds_are_traced_as_meant(tokenizers, name):
    tokenizer = tokenizers(name)
    ids = tokenizer(TEXTS[0], add_special_tokens=False).input_ids
    ends = step_rewards._ends(tokenizer, ids, decode(tokenizer, ids))
    assert (ends is not None) == (name in TRACED)


@pytest.mark.parametrize("name", sorted(TRACED))
def test_long_random_ids_are_traced(tokenizers, name):
    """Not by bisection, whatever was sampled: an untrained model samples just this."""
    tokenizer = tokenizers(name)
    draw = random.Random(0)
    for _ in range(30):
        ids = [draw.randrange(len(tokenizer)) for _ in range(300)]
        assert step_rewards._ends(tokenizer, ids, decode(tokenizer, ids)) is not None


def bytes_ids(tokenizer, data: bytes):
    """One token a byte."""
    byte_level = {byte: char for char, byte in step_rewards.BYTES.items()}
    names = [byte_level[byte] for byte in data]
    if tokenizer.convert_tokens_to_ids(names[0]) is None or "llama" in str(type(tokenizer)):
        names = [f"<0x{byte:02X}>" for byte in data]
    ids = tokenizer.convert_tokens_to_ids(names)
    assert None not in ids
    return ids


def owners(tokenizer, data):
    ids = bytes_ids(tokenizer, data)
    text = decode(tokenizer, ids)
    return text, [token_of(tokenizer, ids, at, at + 1) for at in range(len(text))]


def test_broken_bytes(tokenizers):
    zhong = "中".encode()
    for name in ("tiny_model", "gpt2"):
        tokenizer = tokenizers(name)
        assert owners(tokenizer, zhong + zhong) == ("中中", [2, 5])
        # Clear at the A that no character can come of it any more; at the end, when it is over.
        assert owners(tokenizer, zhong[:2] + b"A") == ("\ufffdA", [2, 2])
        assert owners(tokenizer, b"A" + zhong[:2]) == ("A\ufffd", [0, 2])
        assert owners(tokenizer, b"\xffA") == ("\ufffdA", [0, 1])
        assert owners(tokenizer, "\ufffd".encode()) == ("\ufffd", [2])
    tokenizer = tokenizers("llama")
    assert owners(tokenizer, zhong + zhong) == ("中中", [2, 5])
    assert owners(tokenizer, zhong + zhong[:2]) == ("\ufffd" * 5, [0, 1, 2, 3, 4])


def test_special_tokens_have_no_characters(tokenizers):
    tokenizer = tokenizers("gpt2")
    end = tokenizer.convert_tokens_to_ids(END)
    first, *rest = bytes_ids(tokenizer, "中".encode())
    ids = [end, first, end, *rest, end, *bytes_ids(tokenizer, b"x"), end]
    assert decode(tokenizer, ids) == "中x"
    assert place(tokenizer, ids, 4.0, [(0, 1, 1.0), (0, 2, 2.0)]) == [0, 0, 0, 0, 1, 0, 2, 4]


def test_scores_add_up(tokenizers):
    tokenizer = tokenizers("gpt2")
    ids = bytes_ids(tokenizer, b"abcd")
    steps = [(0, 2, 0.25), (1, 2, 0.5), (3, 4, -1.0), [0, 4, 0.125]]
    assert place(tokenizer, ids, 2.0, steps) == [0.0, 0.75, 0.0, 1.125]
    assert place(tokenizer, ids, 2.0) == [0.0, 0.0, 0.0, 2.0]
    assert place(tokenizer, [], 2.0) == []


def test_a_token_across_the_end_of_a_span_counts(tokenizers):
    tokenizer = tokenizers("gpt2")
    ids = tokenizer("item item").input_ids
    assert tokenizer.convert_ids_to_tokens(ids) == ["Ġitem", "Ġitem"]
    assert place(tokenizer, ids, 0.0, [(0, 3, 1.0)]) == [1.0, 0.0]
    assert place(tokenizer, ids, 0.0, [(0, 6, 1.0)]) == [0.0, 1.0]


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ((0, 0, 1.0), r"\(0, 0, 1.0\).* 4 characters"),
        ((2, 1, 1.0), r"\(2, 1, 1.0\)"),
        ((-1, 2, 1.0), r"\(-1, 2, 1.0\)"),
        ((0, 5, 1.0), r"\(0, 5, 1.0\).* 4 characters"),
        ((0, 1, float("nan")), "nan.*not finite"),
        ((0, 1, float("inf")), "not finite"),
        ((0, 1.5, 1.0), r"\(0, 1.5, 1.0\) is not \(start, end, score\)"),
        ((0, 1), r"\(0, 1\) is no"),
        ((0, 1, "x"), "'x'"),
        (None, "None"),
    ],
)
def test_a_bad_step_is_named(tokenizers, step, words):
    tokenizer = tokenizers("gpt2")
    ids = bytes_ids(tokenizer, b"abcd")
    with pytest.raises(ValueError, match=words):
        place(tokenizer, ids, 0.0, [(0, 1, 1.0), step])
    with pytest.raises(ValueError, match=r"0 characters|is not |not finite"):
        place(tokenizer, [], 0.0, [step])


@pytest.mark.parametrize("name", sorted(TRACED))
@pytest.mark.parametrize("text", [False, True])
def test_linear_time(tokenizers, name, text):
    """For text, and for a row of bytes that never make a character."""
    tokenizer = tokenizers(name)
    (bad,) = bytes_ids(tokenizer, b"\x80")
    unit = tokenizer(TEXTS[1], add_special_tokens=False).input_ids if text else [bad]

    def seconds(length):
        ids = (unit * length)[:length]
        steps = [(at, at + 1, 1.0) for at in range(0, len(decode(tokenizer, ids)), length // 20)]
        times = []
        for _ in range(3):
            start = time.process_time()  # other processes do not count
            place(tokenizer, ids, 1.0, steps)
            times.append(time.process_time() - start)
        return min(times)

    seconds(100)
    assert seconds(16_000) < 30 * seconds(2_000)


def test_what_verl_decodes(tokenizers):
    """The text is that of verl's reward manager, from a tensor."""
    import torch

    for name in MAKERS:
        tokenizer = tokenizers(name)
        ids = [token for text in TEXTS for token in tokenizer(text).input_ids]
        text = tokenizer.decode(torch.tensor(ids), skip_special_tokens=True)
        assert text == decode(tokenizer, ids)
        token_of(tokenizer, ids, 0, len(text))
        with pytest.raises(ValueError, match="not a span"):
            place(tokenizer, ids, 0.0, [(0, len(text) + 1, 1.0)])
