"""A reward that is tried without a model: reference answers, empty ones, attacks. As a run would call it."""

import inspect
import math

from omegaconf import DictConfig, OmegaConf

from preflight.mistakes import Mistake
from rewards._limits import calls
from rewards._limits.worker import trace_of
from rewards._rows import ground_truth_of, info_of

NO_PROMISE = {"range": (-math.inf, math.inf), "reference": None, "empty": None, "free": ()}


class Subject:
    """The reward under test, as the config has it. Mistake, with the line of code, where it can't be imported."""

    def __init__(self, config: DictConfig):
        chosen = config.reward.custom_reward_function
        if not chosen.path:
            raise Mistake(
                "reward=none leaves scoring to verl: name a reward, or reward.custom_reward_function.path."
            )
        if config.reward.reward_model.enable:
            raise Mistake("this reward is a model that verl serves: it scores only inside a run.")
        self.path, self.name = chosen.path, chosen.name
        options = OmegaConf.select(chosen, "reward_kwargs")
        self.options = OmegaConf.to_container(options, resolve=True) if options else {}
        self.limits = calls.Limits(**config.lab.reward_limits)
        self.module = calls.loaded(self.path, self.name)
        self.bars = NO_PROMISE | (self._says("bars", **self.options) or {})

    def reference(self, row: dict) -> str | None:
        """The row's reference answer: what the reward makes of the ground truth, or that itself."""
        truth = ground_truth_of(row)
        if not hasattr(self.module, "reference_answer"):
            return truth if isinstance(truth, str) and truth.strip() else None
        parameters = inspect.signature(self.module.reference_answer).parameters
        known = {k: v for k, v in self.options.items() if k in parameters}
        return self._says("reference_answer", truth, info_of(row), **known)

    def _says(self, function: str, *args, **kwargs):
        """What a function of the module returns; None without one. Mistake, with the line of code, if it raises."""
        if not hasattr(self.module, function):
            return None
        try:
            return getattr(self.module, function)(*args, **kwargs)
        except Exception as error:
            if self.path.startswith("pkg://") and isinstance(error, ValueError):
                raise  # a wrong option, which it says itself
            _, cause, where = trace_of(error, __file__)
            line = f"{function} raised {' '.join(cause.split())}"
            raise Mistake(line + (f" ({where})" if where else "")) from None

    async def score(self, row: dict, answer: str) -> dict:
        """What the reward says."""
        call = (row.get("data_source", ""), answer, ground_truth_of(row), info_of(row))
        return await calls.call(self.path, self.name, call, self.options, self.limits)
