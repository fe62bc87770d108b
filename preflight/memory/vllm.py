"""How much memory a vLLM server takes on one GPU: weights, activations, a cache in what is left of its share."""

from dataclasses import dataclass

from preflight.memory.training import ON_GPU
from preflight.models import Shape


@dataclass(frozen=True)
class Server:
    """A vLLM server on a GPU.

    Args:
        share: of the GPU's memory, or None where `cache` says how much the KV cache is (a CPU).
        b: bytes of a number. parallel: GPUs that share the model.
        longest, sequences, batched: tokens of the longest sequence, sequences at a time, tokens at a time.
        sleeps: gives its memory back between rollouts; an adapter's base then stays on the CPU.
    """

    shape: Shape
    share: float | None
    cache: float | None = None
    head: str = "lm"
    rank: int = 0
    b: int = 2
    parallel: int = 1
    longest: int = 0
    sequences: int = 256
    batched: int = 8192
    eager: bool = False
    sleeps: bool = True
    cuda: bool = True

    @property
    def weights(self) -> float:
        """On one GPU."""
        adapter = self.shape.adapter(self.rank) if self.rank else 0
        return (self.shape.parameters(self.head) + adapter) * self.b / self.parallel

    @property
    def activations(self) -> float:
        """vLLM measures them with a full batch before it takes the rest for the cache; the scores are fp32."""
        s = self.shape
        layer = (3 * s.intermediate * s.experts_per_token / self.parallel + 4 * s.hidden) * self.b
        scores = (
            min(self.sequences, self.batched) * s.vocab * (2 * 4 + self.b) * (self.head == "lm")
        )
        return max(self.batched * layer, scores + self.batched * s.hidden * self.b)

    @property
    def token(self) -> float:
        """Of the cache, for one token."""
        s = self.shape
        return 2 * s.layers * max(s.kv / self.parallel, s.head_dim) * self.b

    def room(self, gpu: float) -> float:
        """For the cache, on a GPU of so many bytes; below 0 if the share doesn't even hold the weights."""
        if self.share is None:
            return self.cache
        return self.share * gpu - self.weights - self.activations - ON_GPU["workspaces"]

    def concurrent(self, gpu: float) -> float:
        """Sequences of full length that the cache holds at once."""
        return max(0.0, self.room(gpu)) / (self.token * max(self.longest, 1))

    def parts(self, gpu: float) -> dict[str, float]:
        """While it generates."""
        graphs = 0 if self.eager or not self.cuda else ON_GPU["graphs"]
        return {
            "vLLM's weights": self.weights,
            "vLLM's activations": self.activations + (ON_GPU["workspaces"] if self.cuda else 0),
            "KV cache": max(0.0, self.room(gpu)),
            "contexts": ON_GPU["server"] if self.cuda else 0,
            "graphs": graphs,
        }
