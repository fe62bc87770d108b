"""Where an exported folder may go: llama.cpp's GGUF, and the hub."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from preflight.mistakes import Mistake

SCRIPT = "convert_hf_to_gguf.py"
GET_IT = (
    f"--gguf needs llama.cpp's {SCRIPT}: git clone https://github.com/ggml-org/llama.cpp && pip install gguf, then"
    " LLAMA_CPP=path/to/llama.cpp (or the script on PATH)"
)
REPO = re.compile(r"[\w.-]+/[\w.-]+")


def converter() -> Path:
    """llama.cpp's converter: in $LLAMA_CPP, or on PATH. Raises Mistake, with how to get it."""
    place = os.environ.get("LLAMA_CPP")
    found = [Path(place).expanduser() / SCRIPT] if place else []
    if on_path := shutil.which(SCRIPT):
        found.append(Path(on_path))
    for file in found:
        if file.is_file():
            return file
    raise Mistake(GET_IT)


def make_gguf(script: Path, folder: Path, kind: str) -> Path:
    """Convert a folder; the file lies in it. Raises Mistake with what the converter said last."""
    file = folder / f"model-{kind}.gguf"
    command = [sys.executable, str(script), str(folder), "--outfile", str(file), "--outtype", kind]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode or not file.is_file():
        said = [line for line in done.stdout.splitlines() if line.strip()] or ["nothing"]
        raise Mistake(f"{script} ended with exit status {done.returncode}: {said[-1][:300]}")
    return file


class Hub:
    """A repository of models on the hub ($HF_ENDPOINT, or huggingface.co)."""

    def __init__(self, repo: str):
        """Look whether it can be written. Raises Mistake: no token, no such name, or it has files already."""
        from huggingface_hub import HfApi, get_token

        if not REPO.fullmatch(repo):
            raise Mistake(f"--push {repo}: a repository is OWNER/NAME")
        if not (token := os.environ.get("HF_TOKEN")):
            hint = (
                " (`hf auth login` has stored one; it is not used unasked)" if get_token() else ""
            )
            raise Mistake(f"--push needs a token that may write: HF_TOKEN in the environment{hint}")
        self.repo, self.api = repo, HfApi(token=token)
        files = self.ask(lambda: self.api.repo_exists(repo) and self.api.list_repo_files(repo))
        if [name for name in files or [] if name != ".gitattributes"]:
            raise Mistake(
                f"{repo} has files already: choose another name, nothing there is overwritten"
            )

    def push(self, folder: Path) -> str:
        """Upload all of a folder into a private repository; returns its address. Raises Mistake."""
        self.ask(lambda: self.api.create_repo(self.repo, private=True, exist_ok=True))
        self.ask(
            lambda: self.api.upload_folder(
                repo_id=self.repo, folder_path=folder, commit_message=f"Export of {folder.name}"
            )
        )
        return f"{self.api.endpoint}/{self.repo}"

    def ask(self, request):
        """A request; what the hub refuses, or no network, is a Mistake."""
        import httpx
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        try:
            return request()
        except (
            HfHubHTTPError,
            OfflineModeIsEnabled,
            httpx.HTTPError,
            OSError,
            ValueError,
        ) as error:
            why = " ".join(str(error).split())[:200]
            raise Mistake(
                f"the hub ({self.api.endpoint}) did not take {self.repo}: {why}"
            ) from None
