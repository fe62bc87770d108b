"""Models by name, and the engines that answer for them: what each promises, on a model that is run."""

import json
import shutil
import threading
from pathlib import Path

import pytest
from chat_server import ChatServer

from preflight.mistakes import Mistake
from tools._models.engine import TOO_LONG, Answer, Asked, Sampling, Settings, open_engine, until
from tools._models.naming import find, short_names

PROMPTS = [[{"role": "user", "content": "word " * n}] for n in (1, 40, 3, 17, 90)]


def weights(folder: Path) -> Path:
    """A folder that looks like one of Hugging Face."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    return folder


@pytest.fixture
def run(tmp_path):
    """A run's folder with checkpoints of steps 2 and 4, and the best model of step 2."""
    folder = tmp_path / "run"
    for step in (2, 4):
        weights(folder / f"checkpoints/global_step_{step}/actor/huggingface")
    (folder / "checkpoints/latest_checkpointed_iteration.txt").write_text("4")
    (folder / "resolved.yaml").write_text("{}")
    weights(folder / "best_model")
    (folder / "best_model/best.json").write_text('{"step": 2}')
    return folder


@pytest.mark.parametrize(("at", "step"), [("", 4), ("@last", 4), ("@2", 2), ("@best", 2)])
def test_a_run(run, at, step):
    model = find(f"{run}{at}")
    assert (model.kind, model.run, model.step) == ("weights", run, step)
    assert Path(model.path, "config.json").is_file()
    assert model.tokenizer == model.path


def test_a_checkpoint_s_folder(run):
    model = find(str(run / "checkpoints/global_step_2"))
    assert (model.run, model.step) == (run, 2)


@pytest.mark.parametrize("at", ["@3", "@bets", "@-1"])
def test_a_step_that_is_not_there_names_those_that_are(run, at):
    with pytest.raises(Mistake, match=r"@2.*@4.*@best"):
        find(f"{run}{at}")


def test_a_run_without_a_checkpoint(run):
    (run / "checkpoints/latest_checkpointed_iteration.txt").unlink()
    with pytest.raises(Mistake, match="save_freq"):
        find(str(run))


def test_a_checkpoint_without_all_its_weights(run):
    (run / "checkpoints/global_step_4/actor/huggingface/model.safetensors").unlink()
    with pytest.raises(Mistake, match=r"tools\.export"):
        find(str(run))


def test_weights_in_several_files(tmp_path):
    folder = weights(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "1.safetensors", "b": "2.safetensors"}}))
    (folder / "1.safetensors").write_bytes(b"")
    with pytest.raises(Mistake, match="or not all"):
        find(str(folder))
    (folder / "2.safetensors").write_bytes(b"")
    assert find(str(folder)).kind == "weights"
    index.write_text('{"weight_map": {')
    with pytest.raises(Mistake, match="is broken"):
        find(str(folder))


def test_an_adapter(tmp_path):
    config = tmp_path / "adapter_config.json"
    config.write_text('{"base_model_name_or_path": "org/base"}')
    model = find(str(tmp_path))
    assert (model.kind, model.base, model.tokenizer) == ("adapter", "org/base", "org/base")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    assert find(str(tmp_path)).tokenizer == str(tmp_path)
    for told in (
        "{}",
        '{"base_model_name_or_path": "/gone/base"}',
        '{"base_model_name_or_path": "data/gone"}',
    ):
        config.write_text(told)
        with pytest.raises(Mistake, match="base_model_name_or_path"):
            find(str(tmp_path))
    config.write_text("{")
    with pytest.raises(Mistake, match="is broken"):
        find(str(tmp_path))


def test_the_folder_of_a_runs_checkpoints_stands_for_the_run(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "resolved.yaml").touch()
    with pytest.raises(Mistake, match=f"^{tmp_path} has no checkpoint: it saves"):
        find(f"{tmp_path}/checkpoints/")


def test_a_hub_id_a_name_and_a_server():
    assert find("Qwen/Qwen2.5-0.5B").kind == "hub"
    assert find("qwen2_5_0_5b").kind == "hub"
    server = find("http://host:8000/v1/#a/b")
    assert (server.kind, server.path, server.name) == ("server", "http://host:8000/v1", "a/b")
    assert find("https://host/v1").name is None


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("qwen3_0_6", "Did you mean qwen3_0_6b"),
        ("outputs/nothing", "no such folder"),
        ("/no/such/folder", "no such folder"),
        ("outputs/nothing@best", "no such folder"),
        ("", "is no model|unknown model"),
    ],
)
def test_what_stands_for_no_model(said, message):
    with pytest.raises(Mistake, match=message):
        find(said)


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(Mistake, match="is no model"):
        find(str(tmp_path))
    (tmp_path / "m.gguf").touch()
    with pytest.raises(Mistake, match=r"llama-server -m .*/m\.gguf"):
        find(str(tmp_path))
    (tmp_path / "m.gguf").unlink()
    (tmp_path / "time" / "grpo").mkdir(parents=True)
    (tmp_path / "time" / "grpo" / "resolved.yaml").touch()
    with pytest.raises(Mistake, match=f"has runs in it. Name one: {tmp_path}/time/grpo$"):
        find(str(tmp_path))
    (tmp_path / "rows.csv").touch()
    with pytest.raises(Mistake, match="is a file, not a model's folder"):
        find(str(tmp_path / "rows.csv"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Mistake, match="no weights"):
        find(str(tmp_path))


def whole(stream) -> tuple[list[str], Answer]:
    pieces = []
    while True:
        try:
            pieces.append(next(stream))
        except StopIteration as end:
            return pieces, end.value


def batch(engine, sampling: Sampling, prompts=PROMPTS, seeds=(5,)) -> list[list[Answer]]:
    """The answers to prompts, in their order; a prompt's seeds are `seeds` and its number."""
    asked = [Asked(i, prompt, tuple(seed + 100 * len(prompt[0]["content"]) for seed in seeds))
             for i, prompt in enumerate(prompts)]  # fmt: skip
    found = {one.key: answers for one, answers in engine.answers(iter(asked), sampling)}
    return [found[i] for i in range(len(prompts))]


@pytest.fixture(scope="module")
def engine(tiny_model):
    return open_engine(find(str(tiny_model)), Settings(dtype="float32"), "transformers")


SAMPLINGS = [Sampling(max_tokens=24), Sampling(1.0, 0.9, 50, 24), Sampling(0.7, max_tokens=200)]


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_stream_says_what_a_batch_says(engine, sampling):
    answers = batch(engine, sampling)
    for prompt, [answer] in zip(PROMPTS, answers, strict=True):
        pieces, made = whole(engine.stream(prompt, sampling, 5 + 100 * len(prompt[0]["content"])))
        assert made == answer
        assert "".join(pieces) == answer.text


def test_an_answer_does_not_depend_on_what_else_is_asked(engine, tiny_model):
    sampling = Sampling(1.0, max_tokens=24)
    together = batch(engine, sampling, seeds=(5, 6))
    backwards = batch(engine, sampling, PROMPTS[::-1], seeds=(5, 6))[::-1]
    alone = [batch(engine, sampling, [prompt], seeds=(5, 6))[0] for prompt in PROMPTS]
    assert together == backwards == alone
    small = open_engine(
        find(str(tiny_model)), Settings(dtype="float32", tokens_at_once=1), "transformers"
    )
    assert batch(small, sampling, seeds=(5, 6)) == together
    assert all(first != second for first, second in together)


def test_greedy_asks_no_seed(engine):
    [[first, second]] = batch(engine, Sampling(max_tokens=24), PROMPTS[:1], seeds=(1, 2))
    assert first == second


def test_how_an_answer_ends(engine):
    [[answer]] = batch(engine, Sampling(max_tokens=3), PROMPTS[:1])
    assert (answer.tokens, answer.finish) == (3, "length")
    _, answer = whole(engine.stream(PROMPTS[0], Sampling(max_tokens=3)))
    assert (answer.tokens, answer.finish) == (3, "length")


def test_the_end_of_the_context_cuts_each_answer_where_its_own_is(tiny_model):
    """A longer neighbour in the batch takes nothing from a shorter one."""
    tight = open_engine(
        find(str(tiny_model)), Settings(dtype="float32", context=160), "transformers"
    )
    sampling = Sampling(1.0, max_tokens=150)
    assert batch(tight, sampling) == [batch(tight, sampling, [prompt])[0] for prompt in PROMPTS]


def test_a_prompt_that_is_too_long(engine):
    long = [{"role": "user", "content": "word " * 5000}]
    answers = batch(engine, Sampling(max_tokens=4), [PROMPTS[0], long])
    assert [answer.finish for [answer] in answers] == ["length", TOO_LONG]
    with pytest.raises(Mistake, match="tokens"):
        next(engine.stream(long, Sampling()))


def test_a_stream_that_is_closed_leaves_no_thread(engine):
    before = threading.active_count()
    stream = engine.stream(PROMPTS[0], Sampling(1.0, max_tokens=300), 1)
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_a_template_of_one_s_own(tiny_model, tmp_path):
    folder = tmp_path / "bare"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(Mistake, match="--template chatml"):
        open_engine(find(str(folder)), Settings(), "transformers")
    engine = open_engine(
        find(str(folder)), Settings(dtype="float32", template="chatml"), "transformers"
    )
    text = engine.render([{"role": "system", "content": "S"}, {"role": "user", "content": "U"}])
    assert (
        text
        == "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nU<|im_end|>\n<|im_start|>assistant\n"
    )
    [[answer]] = batch(engine, Sampling(1.0, max_tokens=60), PROMPTS[:1])
    assert whole(engine.stream(PROMPTS[0], Sampling(1.0, max_tokens=60), 5 + 100 * 5))[1] == answer
    file = tmp_path / "own.jinja"
    file.write_text("{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
                    "{{ m.content }}{% endfor %}")  # fmt: skip
    engine = open_engine(find(str(folder)), Settings(template=str(file)), "transformers")
    assert engine.render([{"role": "user", "content": "U"}]) == "U"
    with pytest.raises(Mistake, match="no system"):
        next(
            engine.stream(
                [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}], Sampling()
            )
        )
    with pytest.raises(Mistake, match="chatml, default, llama"):
        open_engine(find(str(folder)), Settings(template="chtml"), "transformers")


def test_a_stop_that_is_a_special_token(tiny_model, tmp_path):
    """Special tokens are not in the text: such a stop is found as a token. The model is made to say it at once."""
    from transformers import AutoTokenizer

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    tokenizer.save_pretrained(folder)
    engine = open_engine(
        find(str(folder)), Settings(dtype="float32", template="chatml"), "transformers"
    )
    word = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert engine.stop_ids == {word} and word in engine.ends()
    assert engine.answer_of([10, word, 0, 0], 4).finish == "stop"


def test_an_adapter_answers_as_its_merged_weights(tiny_model, tmp_path):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(tiny_model, dtype="float32")
    torch.manual_seed(0)
    net = get_peft_model(
        net, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    )
    net.save_pretrained(tmp_path / "adapter")
    merged = tmp_path / "merged"
    shutil.copytree(tiny_model, merged)
    net.merge_and_unload().save_pretrained(merged)
    model = find(str(tmp_path / "adapter"))
    assert model.kind == "adapter"
    sampling = Sampling(max_tokens=24)
    answers = [batch(open_engine(one, Settings(dtype="float32"), "transformers"), sampling)
               for one in (model, find(str(merged)), find(str(tiny_model)))]  # fmt: skip
    assert answers[0] == answers[1] != answers[2]


def test_half_a_checkpoint(tiny_model, tmp_path):
    from safetensors.torch import load_file, save_file

    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    file = folder / "model.safetensors"
    tensors = load_file(file)
    lost = next(name for name in tensors if "q_proj" in name)
    save_file({k: v for k, v in tensors.items() if k != lost}, file, {"format": "pt"})
    with pytest.raises(Mistake, match="lack 1 tensors"):
        open_engine(find(str(folder)), Settings(), "transformers")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(Mistake, match="can't be loaded"):
        open_engine(find(str(folder)), Settings(), "transformers")


def test_a_model_that_scores_is_not_asked(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    config = json.loads((folder / "config.json").read_text())
    for name in ("Qwen2ForSequenceClassification", "Qwen2ForTokenClassification"):
        (folder / "config.json").write_text(json.dumps(config | {"architectures": [name]}))
        with pytest.raises(Mistake, match="scores answers"):
            open_engine(find(str(folder)), Settings(), "transformers")


def test_a_model_without_its_tokenizer(tiny_model, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(Mistake, match="no tokenizer"):
        open_engine(find(str(folder)), Settings(), "transformers")


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ab<end>cd", "ab"),
        ("<end>", ""),
        ("a<en", "a<en"),
        ("a<<end>", "a<"),
        ("x|y<end>", "x"),
        ("", ""),
    ],
)
def test_a_stop_string_is_found_however_it_is_split(text, said, size):
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    found = list(until(pieces, ("<end>", "|y<")))
    assert "".join(found) == said
    assert all(found)


def test_a_character_of_several_tokens_comes_whole(tiny_model):
    from transformers import AutoTokenizer

    from tools._models.transformers import text_of

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    text = "naïve 日本語 🙂\n  done"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    pieces = list(text_of(tokenizer, ids))
    assert "".join(pieces) == tokenizer.decode(ids)
    assert not any("\ufffd" in piece for piece in pieces)
    assert len(ids) > len(text)  # it has characters of several tokens


@pytest.fixture
def server():
    with ChatServer("An ", "answer.") as one:
        yield one


def test_a_server_answers_in_a_batch_and_a_stream(server):
    engine = open_engine(find(server.url), Settings())
    answers = batch(engine, Sampling(0.5, max_tokens=7), seeds=(1, 2))
    assert answers == [[Answer("An answer.", 2, "stop")] * 2] * len(PROMPTS)
    assert len({(p["messages"][0]["content"], p["seed"]) for p in server.payloads}) == 10
    assert whole(engine.stream(PROMPTS[0], Sampling())) == (
        ["An ", "answer."],
        Answer("An answer.", 2, "stop"),
    )
    assert {p["model"] for p in server.payloads} == {"served"}
    engine.close()


def test_a_busy_server_is_asked_again(server):
    engine = open_engine(find(server.url), Settings(retries=2))
    server.failures = 2
    assert batch(engine, Sampling(), PROMPTS[:1]) == [[Answer("An answer.", 2, "stop")]]
    assert len(server.payloads) == 3


@pytest.mark.parametrize(
    ("status", "said"), [(500, "answered 500"), (401, r"\$OPENAI_API_KEY"), (404, "answered 404")]
)
def test_a_server_that_fails(server, status, said, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-a-person")
    engine = open_engine(find(server.url), Settings(retries=0))
    server.status = status
    for ask in (lambda: batch(engine, Sampling()), lambda: whole(engine.stream(PROMPTS[0], Sampling())),
                lambda: open_engine(find(server.url), Settings(retries=0))):  # fmt: skip
        with pytest.raises(Mistake, match=said) as raised:
            ask()
        assert "sk-of-a-person" not in str(raised.value)
    assert server.headers[0]["Authorization"] == "Bearer sk-of-a-person"


@pytest.mark.parametrize(
    "reply",
    [
        b"{",
        b"[1]",
        b"<html>",
        b'{"choices": null}',
        b'{"choices": "ab"}',
        b'{"choices": [{}]}',
        b'{"choices": [{"message": {"content": 5}}]}',
    ],
)
def test_a_reply_that_is_no_answer(server, reply):
    engine = open_engine(find(server.url), Settings(retries=0))
    server.reply = reply
    with pytest.raises(Mistake, match=r"127\.0\.0\.1.* replied with"):
        batch(engine, Sampling())


def test_a_reply_with_no_count_and_half_a_character(server):
    engine = open_engine(find(server.url), Settings())
    server.reply = b'{"choices": [{"message": {"content": "a\\ud800"}}], "usage": {}}'
    assert batch(engine, Sampling(), PROMPTS[:1]) == [[Answer("a?", 0, "stop")]]


def test_a_server_without_models(server):
    server.models = []
    with pytest.raises(Mistake, match="#NAME"):
        open_engine(find(server.url), Settings())
    assert open_engine(find(f"{server.url}#own"), Settings()).served == "own"


def test_a_stream_that_breaks(server):
    server.broken = 1
    stream = open_engine(find(server.url), Settings(retries=0)).stream(PROMPTS[0], Sampling())
    assert next(stream) == "An "
    with pytest.raises(Mistake, match=r"127\.0\.0\.1"):
        next(stream)


def test_a_server_takes_no_template(server):
    with pytest.raises(Mistake, match="--template"):
        open_engine(find(server.url), Settings(template="chatml"))


def shown(answers: list[list[Answer]]) -> list[list[Answer]]:
    """Half a character at the end, where an answer was cut: vLLM leaves it out, transformers shows its bytes."""
    return [
        [one._replace(text=one.text.rstrip("\ufffd")) for one in several] for several in answers
    ]


@pytest.mark.slow
def test_vllm_says_what_transformers_says(engine, tiny_model):
    vllm = open_engine(find(str(tiny_model)), Settings(dtype="float32", context=512, vllm={
        "enforce_eager": True, "gpu_memory_utilization": 0.1, "max_num_seqs": 8}), "vllm")  # fmt: skip
    sampling = Sampling(max_tokens=24)
    expected = shown(batch(engine, sampling))
    assert shown(batch(vllm, sampling)) == expected
    drawn = Sampling(1.0, max_tokens=24)
    for prompt, [answer] in zip(PROMPTS, batch(vllm, drawn), strict=True):
        pieces, made = whole(vllm.stream(prompt, drawn, 5 + 100 * len(prompt[0]["content"])))
        assert (made, "".join(pieces)) == (answer, answer.text)
    stream = vllm.stream(PROMPTS[0], Sampling(1.0, max_tokens=200), 1)
    next(stream)
    stream.close()  # as Ctrl-C does
    assert shown(batch(vllm, sampling)) == expected
    vllm.close()


@pytest.mark.parametrize(
    "names, short",
    [
        (["/a/b/grpo", "/a/b/sft"], ["grpo", "sft"]),
        (["/a/grpo/sft", "/b/ppo/sft"], ["grpo/sft", "ppo/sft"]),
        (["outputs/grpo-tiny/2026-11-27_10-00-00"], ["grpo-tiny/2026-11-27_10-00-00"]),
        (["run/checkpoints/3"], ["checkpoints/3"]),
        (["tiny", "org/tiny"], ["tiny", "org/tiny"]),
        (["3", "x/"], ["3", "x"]),
    ],
)
def test_short_names_tell_models_apart(names, short):
    assert list(short_names(names).values()) == short
