"""Chat templates by name and by file."""

import pytest

from data_prep._chat import TEMPLATES, template_text


def test_templates_by_name_and_by_file(tmp_path):
    assert sorted(path.stem for path in TEMPLATES.iterdir()) == ["chatml", "default", "llama"]
    for name in ("chatml", "default", "llama"):
        assert "messages" in template_text(name)
    file = tmp_path / "own.jinja"
    file.write_text(
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    )
    assert template_text(str(file)) == file.read_text()


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        (None, "no template"),
        (b"{% for m in messages %}\n{{ m.content }", "line 2"),
        (b"hello", "has no `messages` in it"),
        (b"\xff\xfe{{ messages }}", "is not UTF-8"),
        (b"{{ messages }} ${a}", "which a config can't hold"),
    ],
)
def test_what_is_no_template(tmp_path, text, wrong):
    file = tmp_path / "own.jinja"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(ValueError, match=wrong.replace("{", "[{]")):
        template_text(str(file))
