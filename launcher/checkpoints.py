"""Where the models of a run lie. A leaf: any room may import it."""

from pathlib import Path

TRACKER = "checkpoints/latest_checkpointed_iteration.txt"  # written when a checkpoint is complete


def step_model(step: Path) -> Path | None:
    """The Hugging Face folder of a checkpoint, or None if it has none."""
    return next((p for p in (step / "actor/huggingface", step / "huggingface") if p.is_dir()), None)


def latest_model(run: Path) -> Path | None:
    """The Hugging Face folder of a run's last checkpoint, or None if `run` has none."""
    tracker = run / TRACKER
    if not tracker.is_file():
        return None
    return step_model(run / f"checkpoints/global_step_{tracker.read_text().strip()}")
