"""Some rows as they are: prompts that are no messages, that are empty, that are too long for all of them to stay."""

from omegaconf import DictConfig, OmegaConf

from preflight import tokens
from preflight.checks import Note, applies_to
from preflight.facts import data_files, is_rl, is_verls_sft, row_count
from preflight.mistakes import near
from preflight.tokens import looked_at, wrong_messages

CONVERT = "`python -m data_prep jsonl {0} --prompt {1} --answer reward_model.ground_truth` makes rows of messages."


@applies_to(lambda config: is_rl(config) or is_verls_sft(config))
def check_messages(config: DictConfig) -> str | None:
    """Rows whose prompt a chat template can't render."""
    if any(row_count(file) == 0 for file in data_files(config)):
        empty = [near(file) for file in data_files(config) if row_count(file) == 0]
        return f"{', '.join(empty)} has no rows."
    key = "data.prompt_key" if is_rl(config) else "data.messages_key"
    column = OmegaConf.select(config, key)
    for file, number, messages in looked_at(config):
        if wrong := wrong_messages(messages):
            cure = CONVERT.format(file, column) if "verl takes" in wrong else "Leave such rows out."
            return f"{file}, row {number} (from 0): {column} {wrong}. {cure}"
    return None


@applies_to(lambda config: is_rl(config) or is_verls_sft(config))
def check_long_rows(config: DictConfig) -> str | None:
    """Rows that are too long, by some of each file. `make check` looks at more, and pairs."""
    key = "max_prompt_length" if is_rl(config) else "max_length"
    most = config.data[key]
    for file, lengths in tokens.lengths(config, most).items():
        long = sum(length > most for length in lengths)
        what = f"{file}: {long} of {len(lengths)} rows looked at have more than data.{key}={most} tokens"
        what += f" (up to {max(lengths)})"
        cure = f"{'lab.dataset' if is_rl(config) else 'data'}.{key}={max(lengths)} or more"
        if long == len(lengths):
            return f"{what}: none is left. Set {cure}."
        if long and is_rl(config) and not config.data.filter_overlong_prompts:
            return f"{what}: vLLM refuses them. Set data.filter_overlong_prompts=true, which leaves them out."
        if long and is_rl(config):
            return Note(f"{what}: they are left out. To keep them, set {cure}")
    return None
