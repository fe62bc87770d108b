"""Files of algos/: do they read, do their names clash with verl's, and are their options known."""

import ast

from omegaconf import DictConfig, OmegaConf

from plugins import algos
from preflight.estimators import verls
from preflight.facts import given
from preflight.mistakes import nearest


def check_algo_files(config: DictConfig) -> str | None:
    """Every process of a run imports all of them."""
    for function, decorator in algos.KINDS.items():
        for name in algos.names(function):
            try:
                ast.parse((algos.FOLDER / f"{name}.py").read_text())
            except SyntaxError as error:
                return f"algos/{name}.py, line {error.lineno}: {error.msg}"
            if name in verls(decorator):
                return f"algos/{name}.py: verl has a function of this name itself: give the file another name."
    return None


def check_options(config: DictConfig) -> str | None:
    """Options of an estimator: those that its function takes, of the kind it takes, and it is selected."""
    node = OmegaConf.select(config, "algorithm") or OmegaConf.create({})
    for name in algos.names("compute_advantage"):
        if (options := node.get(name)) is None:
            continue
        if node.adv_estimator != name:
            if given(f"algorithm.{name}"):
                return f"algorithm.{name}.* does nothing: algorithm.adv_estimator is {node.adv_estimator}."
            continue  # of conf/algo/NAME.yaml, with another estimator on the command line
        known = algos.options(name)
        there = "There is: " + (", ".join(known) or "none") + "."
        if not isinstance(options, DictConfig):
            return f"algorithm.{name}={options}: set its options one by one, algorithm.{name}.OPTION=VALUE. {there}"
        for key, value in options.items():
            if key not in known:
                return f"unknown option algorithm.{name}.{key}.{nearest(key, known)} {there}"
            if not fits(value, known[key]):
                return f"algorithm.{name}.{key}={value}: the default is {known[key]!r}, and this is of another type."
    return None


def fits(value, default) -> bool:
    """Whether a value is of the default's type; a whole number is a number, too."""
    return (
        default is None
        or type(value) is type(default)
        or (type(value), type(default)) == (int, float)
    )
