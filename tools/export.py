"""A run's model as a folder that others can load, with proof that it is the run's model.

    python -m tools.export outputs/RUN --to my-model                     the last checkpoint; RUN@best, RUN@STEP another
    python -m tools.export outputs/RUN --to my-adapter --adapter         its LoRA adapter alone, for PEFT
    python -m tools.export outputs/RUN --to my-model --dtype bfloat16 --gguf q8_0

From the weights that verl saved, or the trainer's shards, LoRA merged in; tokenizer, chat template and generation
config go with it. The folder is loaded, and its logits must agree with the checkpoint's, else it is not written.
export.json and README.md say where it comes from, what was compared, and what it scores on held-out rows.
"""

import argparse
import json
import os
import shutil
import sys
import warnings
from pathlib import Path

from preflight.mistakes import Mistake
from tools import Parser, guarded

DTYPES = ("float32", "bfloat16", "float16")
WEIGHTS = (".safetensors", ".bin", ".pt", ".index.json", ".gguf")  # ends of what is made anew
LEFT_OUT = ("best.json", "README.md", "export.json", ".gitattributes")
RUN_ONLY = ("attn_implementation", "_attn_implementation", "torch_dtype")  # of a config.json


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(prog="python -m tools.export", description=__doc__.splitlines()[0])
    parser.add_argument(
        "run", metavar="RUN", help="RUN, RUN@best, RUN@STEP, or the folder of a checkpoint"
    )
    parser.add_argument(
        "--to", type=Path, required=True, metavar="FOLDER", help="it must not be there yet"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, help="of the weights (default: the checkpoint's)"
    )
    parser.add_argument(
        "--adapter", action="store_true", help="the LoRA adapter alone, in PEFT's format"
    )
    parser.add_argument("--check-rows", type=int, default=64, metavar="N",
                        help="held-out rows that are answered and scored (%(default)s; 0: none)")  # fmt: skip
    parser.add_argument(
        "--gguf", choices=("f16", "q8_0"), help="for llama.cpp, too; needs its converter"
    )
    parser.add_argument(
        "--push", metavar="OWNER/NAME", help="upload it to the hub, privately; needs HF_TOKEN"
    )
    args = parser.parse_args(argv)
    if args.gguf and args.adapter:
        parser.error("--gguf is for whole models: leave out --adapter")
    return args


def place(folder: Path) -> Path:
    """Where the folder is made before it gets its name. Raises Mistake if it can't be, or something is there."""
    part = folder.with_name(f"{folder.name}.part")
    if folder.exists():
        raise Mistake(
            f"{folder} is there already, and is left as it is: another --to, or move it away"
        )
    if part.exists():
        raise Mistake(
            f"{part} is left over from an export that was stopped: remove it, or another --to"
        )
    try:
        part.mkdir(parents=True)
    except OSError as error:
        raise Mistake(f"{folder} can't be written: {error.strerror}") from None
    return part


def copy_rest(source, folder: Path, dtype: str, adapter: bool) -> None:
    """Tokenizer, template, generation config, code of the model; config.json with the dtype of the weights."""
    for path in sorted(source.folder.iterdir()):
        if (
            path.is_file()
            and not path.name.endswith(WEIGHTS)
            and path.name not in (*LEFT_OUT, "config.json")
        ):
            shutil.copy(path, folder)
            (folder / path.name).chmod(0o644)
    if adapter:
        return
    config = json.loads((source.folder / "config.json").read_text())
    config = {key: value for key, value in config.items() if key not in RUN_ONLY} | {"dtype": dtype}
    for part in config.values():
        if isinstance(part, dict) and (
            "dtype" in part or "torch_dtype" in part
        ):  # of a model in parts
            part.pop("torch_dtype", None)
            part["dtype"] = dtype
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def quiet() -> None:
    """No bars of transformers between our lines, and nothing about heads that are loaded a moment later."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", module="peft")


def export(args: argparse.Namespace) -> int:
    """Make the folder; the exit status."""
    from tools._export import publish  # what needs no torch is said before it is loaded

    script = publish.converter() if args.gguf else None
    hub = publish.Hub(args.push) if args.push else None
    part = place(args.to)
    try:
        made(args, part, script)
        part.rename(args.to)
    finally:  # a mistake, Ctrl-C
        shutil.rmtree(part, ignore_errors=True)
    print(f"{args.to} is written. Its card: {args.to / 'README.md'}", flush=True)
    if hub:
        try:
            print(f"uploaded to {hub.push(args.to)} (private)")
        except Mistake as mistake:
            raise Mistake(
                f"{mistake}. {args.to} is complete: hf upload {args.push} {args.to}"
            ) from None
    return 0


def made(args: argparse.Namespace, part: Path, script: Path | None) -> None:
    """Everything that comes to lie in the folder. Raises Mistake if it does not agree with the checkpoint."""
    quiet()
    import torch

    from tools._export import card, held_out, proof
    from tools._export.adapter import write_adapter
    from tools._export.source import Merged, open_source
    from tools._export.tensors import write
    from tools._models.engine import Settings, load_tokenizer
    from tools._models.naming import Model

    source = open_source(args.run)
    dtype = getattr(torch, args.dtype) if args.dtype else source.dtype
    name = str(dtype).removeprefix("torch.")
    if script and not source.generates:
        raise Mistake(f"{source.architecture} has no text to write: --gguf is for language models")
    where = source.folder if source.saved and not args.adapter else source.shards.folder
    what = "LoRA adapter" if args.adapter else "weights"
    print(f"step {source.at.step} of {source.at.run}: {what} from {where} as {name}", flush=True)
    copy_rest(source, part, name, args.adapter)
    if args.adapter:
        write_adapter(source, part, dtype)
    else:
        merged = Merged(source, dtype)
        write(part, merged.layout, merged)
    tokenizer = load_tokenizer(Model(str(source.folder), "weights", str(source.folder)),
                               Settings(trust_remote_code=source.trusted))  # fmt: skip
    prompts, origin = held_out.prompts(source, tokenizer)
    agreement = proof.prove(source, part, dtype, prompts, args.adapter)
    print(f"compared with {agreement.compared_with}: {agreement.text()}", flush=True)
    if not agreement.good:
        raise Mistake(f"the exported {what} do not compute what the checkpoint computes: {agreement.text()}. Nothing is"
                      " written")  # fmt: skip
    found = held_out.check(source, part, tokenizer, args.check_rows)
    print("\n".join(["held-out rows:", *filter(None, card.held_out_lines(found))]), flush=True)
    if script:
        from tools._export.publish import make_gguf

        print(f"converted: {make_gguf(script, part, args.gguf).name}", flush=True)
    about = card.record(source, name, args.adapter, agreement, origin, found)
    card.write(part, about, agreement, source.generates)


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    args = arguments(argv)
    try:
        return guarded(lambda: export(args))
    except OSError as error:  # a disk that is full
        print(f"error: {error.filename or args.to}: {error.strerror or error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
