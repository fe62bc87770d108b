"""Where an exported folder comes from and what was found of it: export.json, and the model card README.md."""

import hashlib
import json
import os
from pathlib import Path

import yaml
from omegaconf import OmegaConf

from launcher.checkpoints import CONFIG, NoCheckpoint, checkpoint
from launcher.results import PACKAGES, git_revision, version
from preflight.names import ROOT
from preflight.resolvers import HUB_ID
from tools._export.proof import Agreement
from tools._export.source import Source
from tools._models.naming import told

RECORD, CARD = "export.json", "README.md"
KEYS = (  # of the run's config, those that it has
    "lab.seed", "algorithm.adv_estimator",
    "actor_rollout_ref.actor.policy_loss.loss_mode", "actor_rollout_ref.actor.optim.lr",
    "actor_rollout_ref.actor.use_kl_loss", "actor_rollout_ref.actor.kl_loss_coef",
    "actor_rollout_ref.actor.ppo_mini_batch_size",
    "actor_rollout_ref.rollout.n", "actor_rollout_ref.rollout.temperature", "optim.lr", "optim.lr_scheduler_type",
    "data.train_batch_size", "data.max_prompt_length", "data.max_response_length", "data.max_length",
    "trainer.total_training_steps",
)  # fmt: skip
MORE = ("peft", "safetensors")
TASKS = {  # end of the class's name → the hub's name of what it does, and the class that loads it
    "ForCausalLM": ("text-generation", "AutoModelForCausalLM"),
    "ForSequenceClassification": ("text-classification", "AutoModelForSequenceClassification"),
    "ForTokenClassification": ("token-classification", "AutoModelForTokenClassification"),
}


def shown(path: str | Path) -> str:
    """A path, relative to the project where it lies in it."""
    path = Path(os.path.abspath(path))
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


def lineage(source: Source) -> list[dict]:
    """What the run began with, back to a model that no run made: [{"run", "step"}..., {"model"}]."""
    found: list[dict] = []
    base = source.base
    while base and len(found) < 20:
        try:
            at = checkpoint(base)
        except NoCheckpoint:
            at = None
        file = at.run / CONFIG if at else None
        if file is None or not file.is_file():
            found.append(
                {
                    "model": base
                    if HUB_ID.fullmatch(base) and not Path(base).is_dir()
                    else shown(base)
                }
            )
            break
        config = yaml.safe_load(file.read_text())
        found.append({"run": shown(at.run), "name": config["lab"]["name"], "step": at.step})
        base = ((config.get("actor_rollout_ref") or config).get("model") or {}).get("path")
    return found


def dataset(config: dict) -> dict:
    """The data of the run, and the card that data_prep has written beside it."""
    about = (
        {key: config["data"].get(key) for key in ("train_files", "val_files")}
        if "data" in config
        else {}
    )
    folder = ((config.get("lab") or {}).get("dataset") or {}).get("dir")
    card = Path(folder or ".") / "card.json"
    if folder and card.is_file():
        known = json.loads(card.read_text())
        made = {key: value for key, value in (known.get("made") or {}).items() if key != "code"}
        about["card"] = {key: known[key] for key in ("counts", "rows") if key in known} | {
            "made": made
        }
    return about


def reward(config: dict) -> dict | None:
    """The reward function with its options; None if the run had none."""
    function = (config.get("reward") or {}).get("custom_reward_function") or {}
    if not function.get("path"):
        return None
    return {
        "path": function["path"],
        "name": function.get("name"),
        "options": function.get("reward_kwargs") or {},
    }


def record(
    source: Source, dtype: str, adapter: bool, agreement: Agreement, prompts: str, held_out: dict
) -> dict:
    """All of export.json but the files' sums."""
    config = OmegaConf.create(source.config)
    file = source.at.run / "run.json"
    attempts = told(file).get("attempts") if file.is_file() else None
    attempt = attempts[-1] if attempts else {}
    values = {key: OmegaConf.select(config, key) for key in KEYS}
    lora = source.lora and {"r": source.lora.r, "alpha": source.lora.alpha, "merged": not adapter}
    return {
        "what": "LoRA adapter (PEFT)" if adapter else "weights (safetensors)",
        "architecture": source.architecture,
        "dtype": dtype,
        "base_dtype": str(source.dtype).removeprefix("torch."),  # that the run computed in
        "run": shown(source.at.run),
        "name": (source.config.get("lab") or {}).get("name"),
        "step": source.at.step,
        "lora": lora,
        "began_with": lineage(source),
        "config": {key: value for key, value in values.items() if value is not None},
        "command": attempt.get("command"),
        "dataset": dataset(source.config),
        "reward": reward(source.config),
        "versions": {
            "run": attempt.get("versions"),
            "export": {name: v for name in PACKAGES + MORE if (v := version(name))},
        },
        "git": {"run": attempt.get("git"), "export": git_revision()},
        "logits": {"prompts_from": prompts, **agreement.figures(), "agree": agreement.good},
        "held_out": held_out,
        "notes": source.notes,
    }


def sums(folder: Path) -> dict[str, dict]:
    """Size and SHA-256 of each file."""
    found = {}
    for path in sorted(
        path for path in folder.rglob("*") if path.is_file() and path.name != RECORD
    ):
        with open(path, "rb") as file:
            digest = (
                hashlib.file_digest(file, "sha256")
                if hasattr(hashlib, "file_digest")
                else digest_of(file)
            )
        found[str(path.relative_to(folder))] = {
            "bytes": path.stat().st_size,
            "sha256": digest.hexdigest(),
        }
    return found


def digest_of(file):
    """As hashlib.file_digest of Python 3.11."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest


def write(folder: Path, about: dict, agreement: Agreement, generates: bool) -> None:
    """README.md, then export.json with the sums of all files."""
    (folder / CARD).write_text(
        card(folder.name.removesuffix(".part"), about, agreement, generates), encoding="utf-8"
    )
    text = json.dumps(about | {"files": sums(folder)}, indent=2, default=str, ensure_ascii=False)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def card(name: str, about: dict, agreement: Agreement, generates: bool) -> str:
    """The model card."""
    adapter, began = about["lora"] and not about["lora"]["merged"], about["began_with"]
    task, auto = next((known for end, known in TASKS.items() if about["architecture"].endswith(end)),
                      ("text-generation", "AutoModelForCausalLM"))  # fmt: skip
    learned = (
        "reinforcement-learning"
        if about["config"].get("algorithm.adv_estimator")
        else "fine-tuning"
    )
    head: dict = {"library_name": "peft" if adapter else "transformers", "pipeline_tag": task,
                  "tags": ["verl", learned, *(["lora"] if about["lora"] else [])]}  # fmt: skip
    model = began[-1].get("model") if began else None
    if (
        model
        and HUB_ID.fullmatch(model)
        and not model.startswith(("data/", "outputs/", "multirun/"))
    ):
        head |= {"base_model": model, "base_model_relation": "adapter" if adapter else "finetune"}
    lines = ["---", yaml.safe_dump(head, sort_keys=False).strip(), "---", "", f"# {name}", ""]
    run = about["name"] or about["run"]
    lines += [f"{about['what']}, {about['dtype']}, of the run `{run}`, step {about['step']}.", ""]
    lines += ["## Where it comes from", "", *table(origin(about, began)), ""]
    lines += ["## Does it compute what the checkpoint computes?", "",
              f"Compared with {agreement.compared_with}, in fp32, on {agreement.prompts} prompts"
              f" ({about['logits']['prompts_from']}): {agreement.text()}.", ""]  # fmt: skip
    lines += ["## Held-out rows", "", *held_out_lines(about["held_out"]), ""]
    lines += [
        "## Use",
        "",
        "```python",
        *usage(name, about["base_dtype"], auto, adapter, generates),
        "```",
        "",
    ]
    lines += ["`export.json` has all settings, the versions, and the SHA-256 of each file.", ""]
    return "\n".join(lines)


def origin(about: dict, began: list[dict]) -> list[tuple[str, str]]:
    """Rows of a table."""
    path = " ← ".join(
        f"`{one['name']}`, step {one['step']}" if "run" in one else f"`{one['model']}`"
        for one in began
    )
    rows = [("began with", path or "not known"), ("model class", f"`{about['architecture']}`")]
    if about["lora"]:
        merged = "merged into the weights" if about["lora"]["merged"] else "apart"
        rows.append(
            ("LoRA", f"r = {about['lora']['r']}, alpha = {about['lora']['alpha']}, {merged}")
        )
    made = ((about["dataset"].get("card") or {}).get("made") or {}).get("name")
    counts = (about["dataset"].get("card") or {}).get("rows") or {}
    if made:
        files = {Path(str(about["dataset"].get(key))).name for key in ("train_files", "val_files")}
        used = ", ".join(f"{file}: {count} rows" for file, count in counts.items() if file in files)
        rows.append(("data", f"`{made}`" + (f" ({used})" if used else "")))
    elif about["dataset"].get("train_files"):
        rows.append(("data", f"`{about['dataset']['train_files']}`"))
    if about["reward"]:
        options = ", ".join(f"{k}={v}" for k, v in about["reward"]["options"].items())
        rows.append(
            ("reward", f"`{about['reward']['path']}`" + (f" ({options})" if options else ""))
        )
    rows += [(f"`{key}`", str(value)) for key, value in about["config"].items()]
    for when, versions in about["versions"].items():
        rows.append(
            (
                f"versions, {when}",
                ", ".join(f"{k} {v}" for k, v in (versions or {}).items()) or "not known",
            )
        )
    rows.append(
        (
            "code",
            f"run {about['git']['run'] or 'not known'}, export {about['git']['export'] or 'not known'}",
        )
    )
    return rows


def table(rows: list[tuple[str, str]]) -> list[str]:
    """In Markdown."""
    return ["| | |", "|---|---|", *(f"| {k} | {v.replace('|', chr(92) + '|')} |" for k, v in rows)]


def held_out_lines(found: dict) -> list[str]:
    """What was found on held-out rows, in words."""
    if not found["rows"]:
        return [f"Not looked at: {found['why']}."]
    lines = [f"{found['rows']} of {found['of']} validation rows:", ""]
    for part, name in (
        ("acc", "right answers"),
        ("score", "reward"),
        ("token_loss", "loss of a token"),
    ):
        if part not in found:
            continue
        here, there = found[part]["exported"], found[part]["run"]
        rows = "all rows" if part == "token_loss" else "the same rows"
        beside = f", the run's validation {there:.4f} ({rows})" if there is not None else ""
        lines.append(f"* {name}: {here:.4f}{beside}")
    if "same_text" in found:
        lines.append(
            f"* the same text as the run's answer: {found['same_text']} of {found['in_validation']}"
        )
    if found.get("without_score"):
        lines.append(f"* without a score: {found['without_score']}")
    if found.get("run") not in ("greedy", None):
        lines.append(
            f"* the run's answers were {found['run']}, these are greedy: expect a difference"
        )
    if found.get("why"):
        lines.append(f"* {found['why']}")
    return lines


def usage(name: str, dtype: str, auto: str, adapter: bool, generates: bool) -> list[str]:
    """Code that loads it."""
    if adapter:
        more = "" if generates else ", num_labels=1"
        return [
            "from peft import PeftConfig, PeftModel",
            f"from transformers import {auto}, AutoTokenizer",
            f'base = PeftConfig.from_pretrained("{name}").base_model_name_or_path',
            f'base = {auto}.from_pretrained(base, dtype="{dtype}"{more})',
            f'model = PeftModel.from_pretrained(base, "{name}")',
            f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
        ]
    if generates:
        return [
            "from transformers import pipeline",
            f'model = pipeline("text-generation", "{name}")',
            'answer = model([{"role": "user", "content": "..."}], max_new_tokens=256, do_sample=False)',
            'print(answer[0]["generated_text"][-1]["content"])',
        ]
    return [
        f"from transformers import {auto}, AutoTokenizer",
        f'model = {auto}.from_pretrained("{name}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{name}")',
    ]
