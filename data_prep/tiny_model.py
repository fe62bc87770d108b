"""A tiny Qwen2 chat model with its own tokenizer, made from code, for runs without a GPU.

The weights are random: the model learns the task from the SFT rows of `sql_demo`. The tokenizer is a
byte-level BPE trained on texts of `sql_demo`: keywords, tables and columns are few tokens, and any text
(in Unicode's NFC) can be written. The same options give the same files, byte for byte.
"""

import argparse
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from data_prep import _folder, sql_demo
from data_prep._sql_demo.questions import draw
from preflight.mistakes import Mistake

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
HEAD_DIM = 32  # the smallest that vLLM's attention on a CPU takes
CONTEXT = 512  # tokens
# Qwen2's 0.02 is for wide models; at a width of 128 it makes the first 200 steps nearly idle.
INIT_STD = 0.06


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this command."""
    parser.add_argument("--layers", type=int, default=2, help="number of layers (%(default)s)")
    parser.add_argument(
        "--hidden", type=int, default=128, help="width, a multiple of 32 (%(default)s)"
    )
    parser.add_argument("--vocab", type=int, default=1024, help="number of tokens (%(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of weights and texts (%(default)s)"
    )
    group = parser.add_argument_group("output")
    place = Path("data") / "tiny_model"
    group.add_argument("--out", type=Path, default=place, help="folder (%(default)s)")
    group.add_argument("--force", action="store_true", help="replace what is in the folder")


def make_tokenizer(texts: Iterable[str], vocab: int):
    """A byte-level BPE of `vocab` tokens (fewer if `texts` is short), with the chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

    # AutoTokenizer gives every Qwen2 these three, whatever tokenizer.json says.
    qwen2 = Qwen2Tokenizer().backend_tokenizer
    bpe = Tokenizer(models.BPE())
    bpe.normalizer, bpe.pre_tokenizer, bpe.decoder = (
        qwen2.normalizer,
        qwen2.pre_tokenizer,
        qwen2.decoder,
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer, layers: int, hidden: int, seed: int):
    """A Qwen2ForCausalLM in fp32 with random weights, its vocabulary the tokenizer's."""
    import torch
    from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM

    heads = hidden // HEAD_DIM
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = Qwen2Config(
        # Not rounded up: verl's weight sync into vLLM needs vocab_size == len(tokenizer).
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2 if heads % 2 == 0 else 1,
        max_position_embeddings=CONTEXT,
        initializer_range=INIT_STD,
        tie_word_embeddings=True,
        bos_token_id=None,
        dtype="float32",
        **ends,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen2ForCausalLM(config)
    model.generation_config = GenerationConfig(**ends)
    return model


def conversations(seed: int, number: int = 4000) -> list[str]:
    """Text to train the tokenizer on: questions and reference answers of all levels, in the chat format."""
    return [
        f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n"
        for question in islice(draw(sql_demo.content(seed), sql_demo.LEVELS, seed), number)
        for message in (*sql_demo.prompt(question), sql_demo.answer(question.sql))
    ]


def run(args: argparse.Namespace) -> None:
    """Make the model's folder and print its size."""
    if args.hidden < HEAD_DIM or args.hidden % HEAD_DIM:
        raise Mistake(
            f"--hidden {args.hidden} is not a multiple of {HEAD_DIM}, the width of a head"
        )
    if args.layers < 1 or args.vocab < 256 + len(SPECIAL):
        raise Mistake(
            f"--layers must be 1 or more, --vocab {256 + len(SPECIAL)} or more (all bytes)"
        )

    def fill(folder: Path) -> dict:
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        tokenizer = make_tokenizer(conversations(args.seed), args.vocab)
        model = make_model(tokenizer, args.layers, args.hidden, args.seed)
        tokenizer.save_pretrained(folder)
        model.save_pretrained(folder)
        (folder / "model.safetensors").chmod(0o644)  # it is written as 0600
        return {
            "parameters": model.num_parameters(),
            "vocabulary": len(tokenizer),
            "versions": _folder.versions("verl-lab", "torch", "transformers", "tokenizers"),
        }

    options = {name: getattr(args, name) for name in ("layers", "hidden", "vocab", "seed")}
    card = _folder.build("tiny_model", args.out, options, fill, force=args.force)
    print(f"{args.out}: {card['parameters']:,} parameters, {card['vocabulary']} tokens")
