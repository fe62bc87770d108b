"""Messages as the text that a model reads, and as its tokens: the same for data, trainers, rewards and checks.

A prompt is rendered by the model's chat template up to where the assistant begins to write. Not
covered: tools and images, of which the template makes more than the messages.
"""

import re
from collections.abc import Mapping
from pathlib import Path

TEMPLATES = Path(__file__).parent / "_templates"
GENERATION = re.compile(
    r"{%-?\s*(end)?generation\s*-?%}"
)  # of transformers: which part is the assistant's


def render(
    tokenizer, messages: list[dict], template: Mapping | None = None, prompt: bool = True
) -> str:
    """The text of messages.

    Args:
        tokenizer: of transformers, with a chat template.
        messages: {role, content}.
        template: options of the chat template.
        prompt: whether the assistant writes next; else it is a finished conversation.
    """
    options = {"add_generation_prompt": prompt, **(template or {})}
    return tokenizer.apply_chat_template(list(messages), tokenize=False, **options)


def token_ids(tokenizer, text: str | list[str]) -> list:
    """The tokens of a rendered text, which has all special tokens itself; of several texts, a list of each."""
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def render_answered(
    tokenizer, prompt: list[dict], answer: list[dict], template: Mapping | None = None
) -> tuple[str, str]:
    """The texts of a prompt and of its answer, as they are trained on: each tokenised apart.

    The answer ends with the end-of-sequence token. Raises ValueError if the template renders the
    prompt in another way once it is answered.
    """
    head = render(tokenizer, prompt, template)
    whole = render(tokenizer, [*prompt, *answer], template, prompt=False)
    if not whole.startswith(head):
        raise ValueError("the chat template renders a prompt in another way once it is answered")
    tail, end = whole[len(head) :].rstrip(), tokenizer.eos_token
    return head, tail if tail.endswith(end) else tail + end


def template_text(name: str) -> str:
    """A chat template: of default, chatml or llama, or of a file.

    Raises ValueError if there is none, or if it is not Jinja.
    """
    import jinja2

    file = TEMPLATES / f"{name}.jinja"
    file = file if file.is_file() else Path(name).expanduser()
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in TEMPLATES.glob("*.jinja")))
        raise ValueError(f"no template {name}: {known}, or a file with a Jinja template")
    try:
        text = file.read_text(encoding="utf-8")
        jinja2.Environment(extensions=["jinja2.ext.loopcontrols"]).parse(GENERATION.sub("", text))
    except UnicodeDecodeError:
        raise ValueError(f"template {name} is not UTF-8") from None
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"template {name}, line {error.lineno}: {error.message}") from None
    if "messages" not in text:
        raise ValueError(f"template {name} has no `messages` in it: it is no chat template")
    if "${" in text:
        raise ValueError(
            f"template {name} has '${{' in it, which a config can't hold: write {{{{ '$' + '{{' }}}}"
        )
    return text
