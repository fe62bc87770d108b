"""Streams rows of a dataset of the Hugging Face hub, or of a local folder in its layout."""

from collections.abc import Iterator
from pathlib import Path

from preflight.mistakes import Mistake


def stream(name: str, config: str | None, split: str) -> Iterator[dict]:
    """The rows of a split, one at a time: nothing is downloaded as a whole, nor kept in memory.

    `name` is a folder, or a dataset's name on the hub. Raises Mistake for whatever `datasets`
    can't do.
    """
    import datasets
    from huggingface_hub import HfApi

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors are raised, too
    if not Path(name).is_dir():
        try:  # `datasets` would try for half a minute, and then not say what is wrong
            HfApi().dataset_info(name, timeout=30)
        except Exception as error:
            raise Mistake(
                f"no folder {name}, and the hub can't be asked for it: {_why(error)}"
            ) from error
    try:
        yield from datasets.load_dataset(name, config, split=split, streaming=True)
    except Exception as error:  # of the hub's client, of pyarrow, of json, of the file system
        raise Mistake(f"can't read split {split!r} of {name}: {_why(error)}") from error


def _why(error: BaseException) -> str:
    """What happened, in a line: the messages of the error and of its cause."""
    messages = [str(e) or type(e).__name__ for e in (error, error.__cause__) if e is not None]
    return " ".join(": ".join(dict.fromkeys(messages)).split())[:300]
