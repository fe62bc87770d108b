"""conf/dataset: what a dataset's file must say, and that files with every key written out go on working."""

import pytest
from omegaconf import MissingMandatoryValue

from preflight import names, resolvers

WRITTEN_OUT = """
# @package lab.dataset
# My own.
dir: data/mine
train: ${.dir}/train.parquet
val: ${.dir}/held_out.parquet
sft_train: null
sft_val: null
max_prompt_length: 700
max_response_length: 100
"""
SHORT = """
# @package lab.dataset
# My own.
defaults: [base/files]
max_prompt_length: 700
max_response_length: 100
"""


@pytest.fixture
def own(composer, tmp_path):
    """`own(text)` → the config of a run with that text as dataset=mine."""

    def compose(text: str, *overrides: str):
        (tmp_path / "dataset").mkdir()
        (tmp_path / "dataset/mine.yaml").write_text(text)
        places = [resolvers.verl_trainer_folder(), "machine://", f"file://{tmp_path}"]
        return composer(f"hydra.searchpath=[{','.join(places)}]", "dataset=mine", *overrides)

    return compose


def test_a_file_with_every_key(own):
    config = own(WRITTEN_OUT)
    files = (config.data.train_files, config.data.val_files)
    assert files == (
        f"{names.ROOT}/data/mine/train.parquet",
        f"{names.ROOT}/data/mine/held_out.parquet",
    )
    assert config.lab.dataset.sft_train is None and config.data.max_prompt_length == 700


def test_a_file_on_the_base(own):
    config = own(SHORT, "lab.dataset.dir=/data/mine")
    assert config.data.val_files == "/data/mine/val.parquet"
    assert config.lab.dataset.sft_train == "/data/mine/sft_train.parquet"


def test_the_folder_must_be_said(own):
    with pytest.raises(MissingMandatoryValue, match=r"lab\.dataset\.dir"):
        _ = own(SHORT).lab.dataset.dir


def test_the_base_is_no_dataset():
    assert "files" not in names.groups()["dataset"] and "base" not in names.groups()
