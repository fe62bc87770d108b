"""Exports of small checkpoints in verl's format: whole, LoRA, one and two workers, and what must not be written."""

import hashlib
import http.server
import json
import shutil
import sys
import threading
from pathlib import Path

import pytest
import torch
from checkpoints import save_run
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from preflight.mistakes import Mistake
from tools._export import proof
from tools._export.source import open_source
from tools.export import main

ASKED = torch.tensor([[5, 6, 7, 8, 9, 100, 200]])


def full(tiny_model, dtype=torch.float32):
    """Other weights than the base has."""
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=dtype)
    torch.manual_seed(1)
    for weight in model.parameters():
        weight.data += 0.02 * torch.randn_like(weight)
    return model.eval()


def lora(tiny_model, auto=AutoModelForCausalLM, **config):
    """An adapter that changes something."""
    torch.manual_seed(2)
    model = auto.from_pretrained(tiny_model, **config)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=24, target_modules="all-linear"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    return model.eval()


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=ASKED).logits.float()


def load(folder: Path, auto=AutoModelForCausalLM):
    return auto.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize("world", [1, 2, 3])
def test_all_weights_from_the_shards(tiny_model, tmp_path, world, capsys):
    """3: verl's last parts are smaller then."""
    model = full(tiny_model)
    save_run(tmp_path / "run", model, tiny_model, world)
    out = tmp_path / "out"
    assert main([str(tmp_path / "run"), "--to", str(out)]) == 0
    assert torch.equal(logits(load(out)), logits(model))
    about = json.loads((out / "export.json").read_text())
    assert about["logits"]["agree"] and about["logits"]["largest_difference"] == 0
    assert (about["step"], about["dtype"]) == (3, "float32")
    assert {file.name for file in out.iterdir()} == {"README.md", "export.json", *about["files"]}
    for name, known in about["files"].items():
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == known["sha256"]
    assert (out / "tokenizer.json").is_file() and (out / "chat_template.jinja").is_file()
    assert "largest difference" in capsys.readouterr().out
    assert not (tmp_path / "out.part").exists()


@pytest.mark.parametrize("weights", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_an_adapter_is_merged(tiny_model, tmp_path, weights, dtype):
    model = lora(tiny_model)
    true = logits(model)
    save_run(tmp_path / "run", model, tiny_model, 2, weights=weights)
    out = tmp_path / "out"
    assert main([str(tmp_path / "run"), "--to", str(out), "--dtype", dtype]) == 0
    tensors = load_file(out / "model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {f"torch.{dtype}"}
    assert json.loads((out / "config.json").read_text())["dtype"] == dtype
    apart = (logits(load(out)) - true).abs().max().item()
    assert apart < {"float32": 1e-4, "bfloat16": 0.2, "float16": 0.02}[dtype]
    assert (
        logits(load(tiny_model)) - true
    ).abs().max().item() > 0.3  # so the adapter does something


def test_the_adapter_alone(tiny_model, tmp_path):
    model = lora(tiny_model)
    true = logits(model)
    save_run(tmp_path / "run", model, tiny_model, 2)
    out = tmp_path / "out"
    assert main([str(tmp_path / "run"), "--to", str(out), "--adapter"]) == 0
    config = json.loads((out / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (4, 24)
    assert config["base_model_name_or_path"] == str(tiny_model)
    assert {"q_proj", "down_proj"} < set(config["target_modules"])
    assert torch.equal(logits(PeftModel.from_pretrained(load(tiny_model), out).eval()), true)
    assert not (out / "config.json").exists() and (out / "tokenizer.json").is_file()


@pytest.mark.parametrize("options", [[], ["--adapter"], ["--adapter", "--dtype", "bfloat16"]])
def test_a_reward_model_with_an_adapter(tiny_model, tmp_path, options):
    """Its head is in no base: the adapter takes it along."""
    auto = AutoModelForSequenceClassification
    model = lora(tiny_model, auto, num_labels=1)
    true = logits(model)
    save_run(tmp_path / "run", model, tiny_model)
    out = tmp_path / "out"
    assert main([str(tmp_path / "run"), "--to", str(out), *options]) == 0
    if options:
        base = auto.from_pretrained(tiny_model, num_labels=1)
        made = PeftModel.from_pretrained(base, out).eval()
        assert json.loads((out / "adapter_config.json").read_text())["task_type"] == "SEQ_CLS"
    else:
        made = load(out, auto)
    assert (logits(made) - true).abs().max().item() < (1e-5 if len(options) < 2 else 0.02)


def test_weights_that_disagree_are_not_written(tiny_model, tmp_path, capsys):
    """verl's huggingface folder holds something else than its shards."""
    run = tmp_path / "run"
    step = save_run(run, lora(tiny_model), tiny_model, weights=True)
    file = step / "actor/huggingface/model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"] = tensors["model.norm.weight"] * 1.01
    save_file(tensors, file, {"format": "pt"})
    for dtype in ("float32", "bfloat16"):
        assert main([str(run), "--to", str(tmp_path / "out"), "--dtype", dtype]) == 2
        said = capsys.readouterr().err
        assert "do not compute what the checkpoint computes: largest difference" in said
        assert said.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_another_alpha_is_noticed(tiny_model, tmp_path, monkeypatch):
    """The proof does not repeat what the export computes: a wrong product B A shows."""
    from tools._export import source

    save_run(tmp_path / "run", lora(tiny_model), tiny_model)
    monkeypatch.setattr(source.Lora, "scaling", 1.0)
    assert main([str(tmp_path / "run"), "--to", str(tmp_path / "out")]) == 2


def test_not_a_number_is_no_agreement():
    nan = torch.full((3, 4), float("nan"))
    assert not proof.compare(torch.ones(3, 4), None, nan, "", 1, True).good
    assert not proof.compare(torch.ones(3, 4), torch.ones(3, 4), nan, "", 1, True).good
    assert proof.compare(torch.ones(3, 4), None, torch.ones(3, 4) + 5e-6, "", 1, True).good
    assert not proof.compare(torch.ones(3, 4), None, torch.ones(3, 4) + 2e-5, "", 1, True).good


def test_nothing_is_overwritten(tiny_model, tmp_path, capsys):
    save_run(tmp_path / "run", full(tiny_model), tiny_model)
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("precious")
    assert main([str(tmp_path / "run"), "--to", str(out)]) == 2
    assert "is there already" in capsys.readouterr().err
    assert [file.name for file in out.iterdir()] == ["mine"]
    shutil.move(out, tmp_path / "out.part")
    assert main([str(tmp_path / "run"), "--to", str(out)]) == 2
    assert "left over" in capsys.readouterr().err and (tmp_path / "out.part/mine").exists()
    assert main([str(tmp_path / "run"), "--to", "/proc/nowhere/out"]) == 2
    assert "/proc/nowhere/out can't be written" in capsys.readouterr().err


def breakage(name: str, run: Path, step: Path) -> str:
    """Break a checkpoint; the name to export."""
    shard = step / "actor/model_world_size_2_rank_1.pt"
    match name:
        case "a rank is missing":
            shard.unlink()
        case "a file is cut short":
            shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
        case "no config":
            (step / "actor/huggingface/config.json").unlink()
        case "no checkpoint":
            (run / "checkpoints/latest_checkpointed_iteration.txt").unlink()
        case "another step":
            return f"{run}@7"
        case "no run":
            (run / "logs").mkdir()
            return f"{run}/logs"
        case "nothing":
            return f"{run}/typo"
        case "all shards are missing":
            for file in step.glob("actor/model_world*"):
                file.unlink()
        case "a weight is missing":
            for rank in (0, 1):
                file = step / f"actor/model_world_size_2_rank_{rank}.pt"
                state = torch.load(file, weights_only=False)
                del state["model.norm.weight"]
                torch.save(state, file)
        case "another shape":
            for rank in (0, 1):
                file = step / f"actor/model_world_size_2_rank_{rank}.pt"
                state = torch.load(file, weights_only=False)
                state["model.norm.weight"] = torch.zeros(3)
                torch.save(state, file)
        case "no tensors":
            torch.save([1], step / "actor/model_world_size_2_rank_0.pt")
        case "another shape in the huggingface folder":
            for file in step.glob("actor/model_world*"):
                file.unlink()
            save_file(
                {"model.norm.weight": torch.zeros(3)}, step / "actor/huggingface/model.safetensors"
            )
        case "float8":
            for file in step.glob("actor/model_world*"):
                file.unlink()
            weight = {"model.norm.weight": torch.zeros(3).to(torch.float8_e4m3fn)}
            save_file(weight, step / "actor/huggingface/model.safetensors")
        case "a broken config":
            (step / "actor/huggingface/config.json").write_text("[]")
        case "a broken resolved.yaml":
            (run / "resolved.yaml").write_text("a: [")
        case "an empty resolved.yaml":
            (run / "resolved.yaml").write_text("")
        case "other tied weights":
            file = step / "actor/model_world_size_2_rank_0.pt"
            state = torch.load(file, weights_only=False)
            state["lm_head.weight"] = state["lm_head.weight"].__class__(
                state["lm_head.weight"]._local_tensor + 1, state["lm_head.weight"]._spec, requires_grad=False
            )  # fmt: skip
            torch.save(state, file)
    return str(run)


@pytest.mark.parametrize(("name", "told"), [
    ("a rank is missing", "model_world_size_2_rank_1.pt is missing"),
    ("a file is cut short", "can't be read, as if saving it had been interrupted"),
    ("no config", "half a checkpoint: huggingface/config.json is missing"),
    ("no checkpoint", "has no checkpoint: it saves one every trainer.save_freq steps"),
    ("another step", "has no checkpoint of '7'. There is:"),
    ("no run", "is no run"),
    ("nothing", "is not there"),
    ("all shards are missing", "the trainer's shards are not there either"),
    ("a weight is missing", "lacks 1 weights of Qwen2ForCausalLM, model.norm.weight"),
    ("another shape", "model.norm.weight is (3,), and ("),
    ("no tensors", "it holds no tensors by name"),
    ("another shape in the huggingface folder", "has not the weights of Qwen2ForCausalLM"),
    ("float8", "has weights in F8_E4M3, which can't be exported"),
    ("a broken config", "config.json is broken"),
    ("a broken resolved.yaml", "resolved.yaml is broken"),
    ("an empty resolved.yaml", "resolved.yaml is broken"),
    ("other tied weights", "are one weight in Qwen2ForCausalLM, and differ"),
])  # fmt: skip
def test_half_a_checkpoint(tiny_model, tmp_path, capsys, name, told):
    run = tmp_path / "run"
    asked = breakage(name, run, save_run(run, full(tiny_model), tiny_model, 2))
    capsys.readouterr()  # the bar of transformers, if nothing was loaded before
    assert main([asked, "--to", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and told in said and said.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_full_run_has_no_adapter(tiny_model, tmp_path, capsys):
    save_run(tmp_path / "run", full(tiny_model), tiny_model)
    assert main([str(tmp_path / "run"), "--to", str(tmp_path / "out"), "--adapter"]) == 2
    assert "has no adapter: all weights were trained" in capsys.readouterr().err


def test_alpha_is_never_guessed(tiny_model, tmp_path):
    run = tmp_path / "run"
    step = save_run(run, lora(tiny_model), tiny_model)
    (step / "actor/lora_train_meta.json").unlink()
    with pytest.raises(Mistake, match="doesn't say lora_alpha"):
        open_source(str(run))
    shutil.rmtree(run)
    model = {"path": str(tiny_model), "lora_alpha": 24}
    step = save_run(run, lora(tiny_model), tiny_model, actor_rollout_ref={"model": model})
    (step / "actor/lora_train_meta.json").unlink()
    assert open_source(str(run)).lora.alpha == 24


def test_the_best_model_has_the_shards_of_its_step(tiny_model, tmp_path):
    run, model = tmp_path / "run", full(tiny_model)
    step = save_run(run, model, tiny_model, weights=True)
    shutil.copytree(step / "actor/huggingface", run / "best_model")
    (run / "best_model/best.json").write_text(json.dumps({"step": 3, "metric": "m", "value": 1}))
    assert open_source(f"{run}@best").shards
    shutil.rmtree(run / "checkpoints")
    out = tmp_path / "out"
    assert main([f"{run}@best", "--to", str(out)]) == 0
    about = json.loads((out / "export.json").read_text())
    assert "its shards are not there" in about["logits"]["compared_with"]
    assert torch.equal(logits(load(out)), logits(model))


def test_held_out_rows_are_scored_beside_the_validation(tiny_model, sql_demo, tmp_path, composer):
    """Each row's dumped score is looked up by its prompt, and the run's own reward scores the new answer."""
    import pyarrow.parquet as pq
    from omegaconf import OmegaConf
    from transformers import AutoTokenizer

    config = composer("algo=grpo", "hw=cpu", f"lab.dataset.dir={sql_demo}", f"lab.model.path={tiny_model}",
                      "lab.dataset.max_response_length=8")  # fmt: skip
    config = OmegaConf.to_container(config, resolve=True)
    run = tmp_path / "run"
    save_run(run, full(tiny_model), tiny_model, **config)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    lines = []
    for i, row in enumerate(pq.read_table(f"{sql_demo}/val.parquet").to_pylist()):
        ids = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True)["input_ids"]
        prompt = tokenizer.decode(ids, skip_special_tokens=True)
        truth = row["reward_model"]["ground_truth"]
        lines.append({"input": prompt, "output": "x", "gts": truth, "score": 0.25, "acc": i % 1})
    (run / "validation").mkdir()
    (run / "validation/3.jsonl").write_text("\n".join(map(json.dumps, lines)))
    out = tmp_path / "out"
    assert main([str(run), "--to", str(out), "--check-rows", "5"]) == 0
    found = json.loads((out / "export.json").read_text())["held_out"]
    assert (found["rows"], found["of"], found["in_validation"]) == (5, len(lines), 5)
    assert found["score"]["run"] == 0.25 and found["score"]["exported"] == 0  # noise is no SQL
    assert "reward: 0.0000, the run's validation 0.2500" in (out / "README.md").read_text()


def test_gguf_without_a_converter(tiny_model, tmp_path, capsys, monkeypatch):
    """Told before anything is done."""
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["nothing", "--to", str(tmp_path / "out"), "--gguf", "f16"]) == 2
    assert "git clone https://github.com/ggml-org/llama.cpp" in capsys.readouterr().err


def test_a_converter_that_fails_leaves_nothing(tiny_model, tmp_path, capsys, monkeypatch):
    save_run(tmp_path / "run", full(tiny_model), tiny_model)
    place = tmp_path / "llama"
    place.mkdir()
    (place / "convert_hf_to_gguf.py").write_text("import sys; print('no such model'); sys.exit(1)")
    monkeypatch.setenv("LLAMA_CPP", str(place))
    assert main([str(tmp_path / "run"), "--to", str(tmp_path / "out"), "--gguf", "q8_0"]) == 2
    assert "exit status 1: no such model" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"run", "llama"}


class LocalHub(http.server.BaseHTTPRequestHandler):
    """As much of the hub as an upload needs; what it was sent is in `server.got`."""

    def answer(self, status: int, content) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        if status == 404:
            self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass

    def do_GET(self):
        if not self.server.files:
            return self.answer(404, {"error": "Repository not found"})
        if "/tree/" in self.path:
            tree = [
                {"type": "file", "path": name, "size": 1, "oid": "1"} for name in self.server.files
            ]
            return self.answer(200, tree)
        self.answer(
            200, {"id": "me/made", "siblings": [{"rfilename": name} for name in self.server.files]}
        )

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((self.path, self.headers["Authorization"], body))
        if self.path.endswith("/preupload/main"):
            files = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                     for f in json.loads(body)["files"]]  # fmt: skip
            return self.answer(200, {"files": files})
        if "/commit/" in self.path:
            return self.answer(
                200,
                {
                    "commitUrl": "https://huggingface.co/me/made/commit/1",
                    "commitOid": "1",
                    "success": True,
                },
            )
        self.answer(200, {"url": "https://huggingface.co/me/made", "name": "me/made"})


@pytest.fixture
def hub(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), LocalHub)
    server.files, server.got = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    from huggingface_hub import hf_api

    monkeypatch.setattr(hf_api.constants, "ENDPOINT", address)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    yield server
    server.shutdown()
    server.server_close()


def test_a_push_sends_every_file(tiny_model, tmp_path, hub, capsys):
    save_run(tmp_path / "run", full(tiny_model), tiny_model)
    out = tmp_path / "out"
    assert main([str(tmp_path / "run"), "--to", str(out), "--push", "me/made"]) == 0
    paths = [path for path, _, _ in hub.got]
    create = json.loads(next(body for path, _, body in hub.got if path == "/api/repos/create"))
    assert create["name"] == "made" and (
        create.get("private") or create.get("visibility") == "private"
    )
    assert {token for _, token, _ in hub.got} == {"Bearer hf_test"}
    commit = hub.got[next(i for i, path in enumerate(paths) if "/commit/" in path)][2]
    sent = {
        json.loads(line)["value"]["path"] for line in commit.splitlines() if b'"file"' in line[:20]
    }
    assert sent == {file.name for file in out.iterdir()}
    assert "hf_test" not in (out / "export.json").read_text() + capsys.readouterr().out


def test_a_push_overwrites_nothing_and_needs_a_token(tmp_path, hub, capsys, monkeypatch):
    hub.files = ["config.json"]
    ask = ["nothing", "--to", str(tmp_path / "out"), "--push", "me/made"]
    assert main(ask) == 2
    assert "me/made has files already" in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    assert main(ask) == 2
    assert "HF_TOKEN" in capsys.readouterr().err
    assert hub.got == []


def test_help_and_mistakes_do_not_wait_for_torch(tmp_path):
    import subprocess

    code = "import sys, tools.export; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
