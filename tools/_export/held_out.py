"""What an exported folder makes of held-out rows, beside what the run's validation said at that step.

A run of RL: answers are drawn greedily by transformers and scored by the run's own reward, with its limits; the same
rows are looked up in RUN/validation/STEP.jsonl. A run that learns from given answers: the loss of a token.
"""

import asyncio
import json
import math
import random
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pyarrow.parquet as pq
import torch
from omegaconf import OmegaConf

from data_prep._chat import render, token_ids
from launcher.metrics import read_metrics
from launcher.progress import VALIDATION, pick
from preflight.mistakes import Mistake
from preflight.subject import Subject
from rewards._limits.calls import RewardError
from rewards._rows import RowError, ground_truth_of
from tools._export.source import Source, base_folder
from tools._models.engine import Asked, Sampling, Settings
from tools._models.naming import ADAPTER, Model, local

AT_ONCE = 16
TRIED = 5000  # rows that are looked through for some that the run has validated
LONGEST_S = 300  # no further batch is begun after this time
TEXTS = (
    "Write a short letter to a friend about the weather.",
    "List three prime numbers, and say why 9 is none.",
    "SELECT name FROM city WHERE population > 100000",
    "The quick brown fox jumps over the lazy dog.",
)
EMPTY = {"rows": 0}


def template_of(source: Source) -> dict:
    """The options of the chat template that the run has used."""
    return dict((source.config.get("data") or {}).get("apply_chat_template_kwargs") or {})


def dtype_of(source: Source) -> str:
    """The checkpoint's, by its name."""
    return str(source.dtype).removeprefix("torch.")


def validation_rows(source: Source, count: int, seed: int = 0) -> tuple[list[dict], int]:
    """A sample of the run's validation rows, in their order, and how many there are; none if the file is gone."""
    files = (source.config.get("data") or {}).get("val_files") or []
    files = [files] if isinstance(files, str) else list(files)
    if not files or not all(Path(file).is_file() for file in files):
        return [], 0
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    chosen = sorted(random.Random(seed).sample(range(len(rows)), min(count, len(rows))))
    return [rows[i] for i in chosen], len(rows)


def prompts(source: Source, tokenizer, count: int = 4) -> tuple[list[list[int]], str]:
    """Tokens to compare logits on, and where they are from: validation rows, or texts if there are none."""
    found = []
    for row in validation_rows(source, count)[0]:
        messages = row.get("messages") or row.get("prompt")
        if not isinstance(messages, list) or not tokenizer.chat_template:
            continue
        text = render(tokenizer, messages, template_of(source), prompt="messages" not in row)
        found.append(token_ids(tokenizer, text))
    if found:
        return found, "validation rows of the run"
    return [token_ids(tokenizer, text) for text in TEXTS[:count]], "texts of the exporter"


def check(source: Source, folder: Path, tokenizer, count: int) -> dict:
    """What the folder makes of `count` held-out rows: for export.json; `why` says why there is nothing."""
    trainer = (source.config.get("lab") or {}).get("trainer") or {}
    try:
        if count < 1:
            return EMPTY | {"why": "not asked for (--check-rows 0)"}
        if not source.generates:
            return EMPTY | {"why": "it scores answers, and writes none"}
        if trainer.get("kind") == "rl":
            return scores(source, folder, tokenizer, count)
        if "messages" in (trainer.get("columns") or []):
            return loss(source, folder, tokenizer, count)
        return EMPTY | {"why": "its validation is of pairs, which this tool does not repeat"}
    except (
        Mistake,
        RewardError,
        RowError,
        ImportError,
    ) as error:  # no reason to give up an export that agrees
        return EMPTY | {"why": f"the reward could not be asked: {str(error).splitlines()[0]}"}


def scores(source: Source, folder: Path, tokenizer, count: int) -> dict:
    """Greedy answers with the run's reward, and the same rows of the run's validation."""
    from tools._models.transformers import Transformers

    config = OmegaConf.create(source.config)
    subject = Subject(config)
    data, dumped = config.data, dump(source)
    rows, total = validation_rows(source, TRIED)
    random.Random(0).shuffle(rows)
    asked: list[tuple[dict, str]] = []
    for row in rows:
        if row.get("agent_name"):
            return EMPTY | {"why": "its answers take several turns"}
        ids = token_ids(tokenizer, render(tokenizer, row["prompt"], template_of(source)))
        prompt = tokenizer.decode(ids, skip_special_tokens=True)
        if len(ids) > data.max_prompt_length or (dumped and prompt not in dumped):
            continue  # the run has left it out
        asked.append((row, prompt))
        if len(asked) == count:
            break
    if not asked:
        return EMPTY | {"why": "the validation file is gone, or has no rows that are short enough"}
    settings = Settings(
        # an adapter fits its base as the run had it; the base's config.json may name another dtype
        dtype=dtype_of(source) if (folder / ADAPTER).is_file() else "auto",
        template_kwargs=template_of(source),
        trust_remote_code=source.trusted,
        context=data.max_prompt_length + data.max_response_length,
    )
    model: Model = local(str(folder), folder)
    engine = Transformers(model, settings, data.max_response_length)
    sampling, order, begin = (
        Sampling(max_tokens=data.max_response_length),
        list(range(len(asked))),
        time.monotonic(),
    )
    random.Random(1).shuffle(order)  # so that what is done in time is a sample, too
    answers: dict[int, str] = {}
    for at in range(0, len(order), AT_ONCE):
        if time.monotonic() - begin > LONGEST_S:
            break
        batch = [Asked(i, asked[i][0]["prompt"]) for i in order[at : at + AT_ONCE]]
        answers |= {one.key: given[0].text for one, given in engine.answers(batch, sampling)}
    del engine
    made = asyncio.run(score_all(subject, [(asked[i][0], text) for i, text in answers.items()]))
    pairs = [(text, result, found_in(dumped, *asked[i]))
             for (i, text), result in zip(answers.items(), made, strict=True)]  # fmt: skip
    return summary(source, config, pairs, total, bool(dumped))


async def score_all(subject: Subject, given: list[tuple[dict, str]]) -> list[dict]:
    """The reward of each (row, answer)."""
    return await asyncio.gather(*(subject.score(row, answer) for row, answer in given))


def dump(source: Source) -> dict[str, list[dict]]:
    """The run's validation at the step: by the prompt's text."""
    file, found = source.at.run / f"validation/{source.at.step}.jsonl", defaultdict(list)
    if file.is_file():
        with open(file) as lines:
            for line in lines:
                row = json.loads(line)
                found[row["input"]].append(row)
    return found


def found_in(dumped: dict[str, list[dict]], row: dict, prompt: str) -> list[dict]:
    """The answers of the run to a row."""
    found = dumped.get(prompt, [])
    if len(found) > 1:
        truth = ground_truth_of(row)
        found = [one for one in found if one.get("gts") == truth] or found
    return found


def summary(
    source: Source, config, pairs: list[tuple[str, dict, list[dict]]], total: int, known: bool
) -> dict:
    """The figures. Rows without a score (masked) are counted, and are in no mean."""
    run = config.actor_rollout_ref.rollout.val_kwargs
    greedy = not run.do_sample or run.temperature == 0
    result: dict = {"rows": len(pairs), "of": total, "answers": "greedy, transformers"}
    result["run"] = (
        None if not known else ("greedy" if greedy else f"sampled, temperature {run.temperature}")
    )
    for part in ("acc", "score"):
        here = [one[part] for _, one, _ in pairs if is_number(one.get(part))]
        if here:
            result[part] = {"exported": fmean(here), "run": None}
        there = list(numbers(pairs, part))
        if here and there:
            result[part]["run"] = fmean(there)
    result["without_score"] = sum(not is_number(one.get("score")) for _, one, _ in pairs)
    if known:
        result["in_validation"] = sum(bool(there) for *_, there in pairs)
    if known and greedy:
        result["same_text"] = sum(text == there[0]["output"] for text, _, there in pairs if there)
    elif not known:
        result["why"] = f"the run made no validation at step {source.at.step}"
    return result


def numbers(pairs: list[tuple[str, dict, list[dict]]], part: str) -> Iterator[float]:
    """A part of the run's own scores of these rows: the mean of each row's answers."""
    for *_, there in pairs:
        found = [one[part] for one in there if is_number(one.get(part))]
        if found:
            yield fmean(found)


def is_number(value) -> bool:
    """NaN is no score."""
    return isinstance(value, int | float) and math.isfinite(value)


def loss(source: Source, folder: Path, tokenizer, count: int) -> dict:
    """The loss of a token of the last answer of each conversation, and the run's over all rows."""
    import transformers

    rows, total = validation_rows(source, count)
    if not rows:
        return EMPTY | {"why": "the validation file is gone"}
    made = getattr(transformers, source.architecture, transformers.AutoModelForCausalLM)
    model = loaded(made, folder, source)
    longest, begin, done = source.config["data"]["max_length"], time.monotonic(), 0
    lost, tokens = 0.0, 0
    for row in rows:
        *prompt, answer = row["messages"]
        if answer["role"] != "assistant" or any(one["role"] == "assistant" for one in prompt):
            return EMPTY | {
                "why": "its conversations have several answers, which this tool does not repeat"
            }
        if time.monotonic() - begin > LONGEST_S:
            break
        head = render(tokenizer, prompt, template_of(source))
        whole = render(tokenizer, [*prompt, answer], template_of(source), prompt=False)
        if not whole.startswith(head):
            return EMPTY | {
                "why": "the chat template renders a prompt in another way once it is answered"
            }
        # all that the template writes after the prompt, as in the run
        first, ids = token_ids(tokenizer, head), token_ids(tokenizer, whole[len(head) :])
        if len(first) + len(ids) > longest:
            continue
        with torch.inference_mode():
            logits = (
                model(input_ids=torch.tensor([first + ids])).logits[0, len(first) - 1 : -1].float()
            )
        lost += torch.nn.functional.cross_entropy(logits, torch.tensor(ids), reduction="sum").item()
        tokens, done = tokens + len(ids), done + 1
    metrics = read_metrics(source.at.run / "metrics.jsonl").get(source.at.step, {})
    run = pick(metrics, VALIDATION)
    return {
        "rows": done,
        "of": total,
        "token_loss": {"exported": lost / max(tokens, 1), "run": run},
    }


def loaded(made, folder: Path, source: Source):
    """The exported model, of the class `made`; an adapter on its base."""
    if not (folder / ADAPTER).is_file():
        return made.from_pretrained(folder, trust_remote_code=source.trusted).eval()
    from peft import PeftModel

    base = made.from_pretrained(
        base_folder(source), dtype=source.dtype, trust_remote_code=source.trusted
    )
    return PeftModel.from_pretrained(base, folder).eval()
