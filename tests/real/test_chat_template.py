"""lab.model.chat_template: training, sampling and tools render by one template."""

import json

import pytest
from transformers import AutoTokenizer

from tools._models import engine, naming

pytestmark = pytest.mark.real
TEMPLATE = """{%- for message in messages -%}
[{{ message['role'] }}] {{ message['content'] }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}[assistant] {% endif -%}
"""


def test_sft_rl_and_tools_use_the_same_template(run, tmp_path):
    file = tmp_path / "own.jinja"
    file.write_text(TEMPLATE)
    key = f"lab.model.chat_template={file}"
    sft = run("algo=sft", key, "trainer.save_freq=2", folder=tmp_path / "sft")
    rl = run(f"lab.model.path={sft.folder}", key, "trainer.save_freq=2", folder=tmp_path / "rl")
    for folder in (sft.folder, rl.folder):
        model = naming.find(str(folder))
        assert AutoTokenizer.from_pretrained(model.tokenizer).chat_template == TEMPLATE
        tokenizer = engine.load_tokenizer(model, engine.Settings())  # as chat, evaluate and compare
        assert tokenizer.chat_template == TEMPLATE
    answers = [
        json.loads(line) for line in (rl.folder / "rollouts/1.jsonl").read_text().splitlines()
    ]
    assert answers and all(one["input"].endswith("[assistant]") for one in map(stripped, answers))


def stripped(answer: dict) -> dict:
    return answer | {"input": answer["input"].strip()}
