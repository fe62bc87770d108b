"""Answers that a run dumped: verl's rollouts/STEP.jsonl and validation/STEP.jsonl in a run's folder.

A dumped line has the prompt as rendered text only (`input`), without special tokens. Its messages,
database and so on are those of the row of the run's data that renders, by the run's tokenizer and
chat template, to the same text and has the same ground truth (`gts`).
Not covered: prompts with tools or images, whose text the template makes of more than the messages.
"""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import chain
from pathlib import Path

import yaml

from data_prep import _chat
from data_prep._lengths import load_tokenizer
from data_prep._read import Broken, read
from data_prep._split import digest
from preflight.mistakes import Mistake

CONFIG = "resolved.yaml"
SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
COLUMNS = ("data_source", "reward_model", "extra_info")


def files_of(source: Path) -> list[Path]:
    """The files that a path stands for, in the order of their steps. Raises Mistake."""
    if source.is_file():
        return [source]
    dumps = (
        [source / "validation", source / "rollouts"] if (source / CONFIG).is_file() else [source]
    )
    found = [f for d in dumps if d.is_dir() for f in d.iterdir() if f.suffix in SUFFIXES]
    if not found:
        raise Mistake(f"no answers in {source}" if source.is_dir() else f"no file {source}")
    return sorted(found, key=lambda f: (f.parent.name, len(f.name), f.name))


@contextmanager
def open_answers(source: Path, folder: Path) -> Iterator[Iterator[dict | Broken]]:
    """The rows of `source`; those that a run dumped with the rows they answer. `folder`: for work."""
    with closing(Prompts(source, folder)) as prompts:
        yield map(prompts.join, chain.from_iterable(map(read, files_of(source))))


class Prompts:
    """The rows of a run's data by their rendered prompts, on disk."""

    def __init__(self, source: Path, folder: Path):
        self.source = source
        self.stored = sqlite3.connect(folder / "prompts.sqlite")
        self.ready = False

    def close(self) -> None:
        self.stored.close()

    def join(self, row: dict | Broken) -> dict | Broken:
        """The row, with its prompt if it was dumped without."""
        if isinstance(row, Broken) or "prompt" in row or "input" not in row:
            return row
        if not self.ready:
            self.fill()
            self.ready = True
        key = digest([row["input"], row.get("gts")])
        found = self.stored.execute("SELECT row FROM prompts WHERE key = ?", [key]).fetchone()
        if not found:
            return Broken(json.dumps(row), "input: no row of the run's data renders to it")
        return row | json.loads(found[0])

    def fill(self) -> None:
        """Render every prompt of the run's data."""
        places = [self.source, *self.source.resolve().parents[:2]]
        run = next((place for place in places if (place / CONFIG).is_file()), None)
        if run is None:
            raise Mistake(f"{self.source}: dumped answers need their run's {CONFIG} above them")
        config = yaml.safe_load((run / CONFIG).read_text())
        model, data = config["actor_rollout_ref"]["model"], config["data"]
        tokenizer = load_tokenizer(model.get("tokenizer_path") or model["path"])
        template = data.get("apply_chat_template_kwargs")

        def rendered(prompt: list) -> str:
            ids = _chat.token_ids(tokenizer, _chat.render(tokenizer, prompt, template))
            return tokenizer.decode(ids, skip_special_tokens=True)

        def entries() -> Iterator[tuple[bytes, str]]:
            key = data.get("prompt_key") or "prompt"
            for files in (
                data["train_files"],
                data["val_files"],
            ):  # what is in both is for validation
                for file in [files] if isinstance(files, str) else files or []:
                    for row in read(Path(file)):
                        if isinstance(row, Broken):
                            continue  # and the run did without it
                        reference = row["reward_model"]["ground_truth"]
                        kept = {name: row[name] for name in COLUMNS} | {"prompt": row[key]}
                        yield digest([rendered(row[key]), reference]), json.dumps(kept, default=str)

        self.stored.execute("CREATE TABLE prompts (key BLOB PRIMARY KEY, row TEXT) WITHOUT ROWID")
        self.stored.executemany("INSERT OR REPLACE INTO prompts VALUES (?, ?)", entries())
