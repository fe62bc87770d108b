"""Lengths of rows in tokens: the same as with transformers' tokenizer, and what the checks make of them."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from preflight_helpers import RL_ROW, SFT_ROW, caught, noted, said_by

from preflight import tokens

WORDS = ["Reverse: a b c", "x", "how many of them are here and how many are there? " * 3]


def prompt(text: str) -> dict:
    return RL_ROW | {"prompt": [{"role": "user", "content": text}]}


@pytest.fixture
def rows(tmp_path):
    """Files of RL rows and of SFT rows, by the overrides that name them."""
    rl, sft = [prompt(text) for text in WORDS], []
    for row in rl:
        sft.append({"messages": [*row["prompt"], SFT_ROW["messages"][1]]})
    pq.write_table(pa.Table.from_pylist(rl), tmp_path / "rl.parquet")
    pq.write_table(pa.Table.from_pylist(sft), tmp_path / "sft.parquet")
    kinds = {"grpo": (rl, "prompt"), "sft": (sft, "messages")}
    return {
        algo: ([f"algo={algo}", f"data.train_files={tmp_path / name}", "data.val_files=null"], *of)
        for (algo, of), name in zip(kinds.items(), ("rl.parquet", "sft.parquet"), strict=True)
    }


def exact(tokenizer, algo: str, conversations: list) -> list[int]:
    texts = [
        tokenizer.apply_chat_template(one, tokenize=False, add_generation_prompt=algo == "grpo")
        for one in conversations
    ]
    return [len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in texts]


@pytest.mark.parametrize("algo", ["grpo", "sft"])
def test_lengths_are_those_of_transformers(configure, tiny_model, rows, algo):
    from transformers import AutoTokenizer

    overrides, table, column = rows[algo]
    want = exact(AutoTokenizer.from_pretrained(tiny_model), algo, [row[column] for row in table])
    [found] = tokens.lengths(configure(*overrides)).values()
    assert found == want
    [near] = tokens.lengths(configure(*overrides), max(want)).values()
    assert near == want
    [far] = tokens.lengths(configure(*overrides), 5000).values()
    assert all(0 < words < whole for words, whole in zip(far, want, strict=True))


def test_a_template_of_ones_own_counts(configure, tiny_model, tmp_path, rows):
    """One in tokenizer_config.json, or in the run's config, which wins; a broken one is left to other checks."""
    overrides = rows["grpo"][0]
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    (folder / "chat_template.jinja").unlink()
    file = folder / "tokenizer_config.json"
    known = json.loads(file.read_text())
    template = "{% for m in messages %}{{ m.content }}{{ eos_token * 7 }}{% endfor %}"
    file.write_text(json.dumps(known | {"chat_template": template}))

    def lengths(*more):
        [found] = tokens.lengths(configure(*overrides, f"lab.model.path={folder}", *more)).values()
        return found

    [words] = tokens.lengths(configure(*overrides), 5000).values()
    assert lengths() == [length + 7 for length in words]
    key = "actor_rollout_ref.model.custom_chat_template"
    assert lengths(f"{key}='{{{{ messages[0].content }}}}'") == words
    assert lengths(f"{key}='{{{{ messages[9].content }}}}'") == words


def test_a_limit_between_the_words_and_the_whole_is_seen(configure, rows):
    """What is left out is the rendered prompt, which is longer than its words."""
    overrides, *_ = rows["grpo"]
    [found] = tokens.lengths(configure(*overrides)).values()
    [words] = tokens.lengths(configure(*overrides), 5000).values()
    short = min(found) - 1
    assert short > min(words)
    limit = "data.max_prompt_length"
    line = caught("check_long_rows", configure(*overrides, f"{limit}={short}"))
    assert f"none is left. Set lab.dataset.max_prompt_length={max(found)} or more" in line
    line = noted("check_long_rows", configure(*overrides, f"{limit}={max(found) - 1}"))
    assert "1 of 3 rows" in line and f"(up to {max(found)}): they are left out" in line
    assert tokens.lengths(configure(*overrides, "lab.model.path=nobody/nothing")) == {}


def test_lengths_beyond_the_context_are_told_with_what_fits(configure, rows):
    overrides, *_ = rows["grpo"]
    [found] = tokens.lengths(configure(*overrides)).values()
    long = ["lab.dataset.max_prompt_length=1024", "lab.dataset.max_response_length=1024"]
    line = caught("check_lengths", configure(*overrides, *long))
    assert f"Of 3 prompts looked at the longest has {max(found)} tokens: set lab.dataset" in line
    fitting = line.partition(": set ")[2].partition(", or less")[0].split(" and ")
    sizes = [int(one.partition("=")[2]) for one in fitting]
    assert sizes[0] >= max(found) and sum(sizes) == 512
    assert said_by(["check_lengths", "check_long_rows"], configure(*overrides, *fitting)) == {}


def test_prompts_that_no_length_fits(configure, tmp_path):
    pq.write_table(pa.Table.from_pylist([prompt("a b c " * 400)]), tmp_path / "long.parquet")
    files = [f"data.train_files={tmp_path / 'long.parquet'}", "data.val_files=null"]
    long = ["lab.dataset.max_prompt_length=1024", "lab.dataset.max_response_length=1024"]
    assert "a longer context" in caught("check_lengths", configure(*files, *long))
