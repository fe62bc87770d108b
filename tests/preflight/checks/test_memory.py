"""What preflight refuses because it doesn't fit; tests/preflight/memory has the plan itself."""

from collections import namedtuple

from preflight_helpers import caught

from preflight.checks import memory


def test_each_mistake_is_found(configure, monkeypatch):
    assert "There is: auto, check, off" in caught("check_plan", configure("lab.plan=chek"))
    large = configure("hw=rtx4070", "lab.model.path=Qwen/Qwen2.5-7B-Instruct")
    assert "it would not start. No setting makes it fit" in caught("check_fit", large)
    usage = namedtuple("Usage", "free")(0)
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda _: usage)
    assert "has 0 free: keep fewer" in caught("check_checkpoint_space", configure())
