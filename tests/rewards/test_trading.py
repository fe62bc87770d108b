"""reward=trading: hand-made answers with their bands, attacks, what counts as logic, hostile text."""

import ast
import dataclasses
import datetime
import inspect
import math
import statistics
import textwrap
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards._options import defaults
from rewards._trading import notebook
from rewards._trading.flow import Flow
from rewards._trading.strategy import Strategy
from rewards.trading import Options, bars, compute_score, reference_answer

PROMPT = "Create a RSI-based trading strategy for SPY with a trend filter"
INFO = {"messages": [{"role": "user", "content": PROMPT}]}

# The example that a published reward of this kind is documented with.
SAMPLE = """
def rsi_strategy(data, period=14):
    # Calculate RSI
    rsi = calculate_rsi(data, period)

    # Entry: RSI oversold
    buy_signal = rsi < 30

    # Exit: RSI overbought
    sell_signal = rsi > 70

    # Risk management
    stop_loss = 0.02  # 2% stop loss

    return buy_signal, sell_signal, stop_loss
"""
REASONING = """The idea is mean reversion: when the RSI falls below 30, sellers of SPY are exhausted, so that a bounce
is more likely than a further fall.

1. We buy when the RSI is below the threshold and the price is above its moving average, because dips in an uptrend
   recover faster.
2. We exit when the RSI rises above 60, or when the price falls through the stop, which is two ATR below the close.
3. Each position risks one percent of the capital, therefore a wide stop means a smaller size.

The strategy fails in strong downtrends, where oversold markets stay oversold; the filter limits such losses."""
CODE = '''import numpy as np
import pandas as pd


def relative_strength_index(close: pd.Series, period: int = 14) -> pd.Series:
    """Return the relative strength index of a price series, from 0 to 100."""
    change = close.diff()
    gain = change.clip(lower=0).rolling(period).mean()
    loss = -change.clip(upper=0).rolling(period).mean()
    return 100 - 100 / (1 + gain / loss)


def generate_signals(data: pd.DataFrame, capital: float = 100_000) -> pd.DataFrame:
    """Add the signal, the size of a position and the equity of the strategy to the data."""
    rsi = relative_strength_index(data["close"])
    trend = data["close"].rolling(200).mean()
    atr = (data["high"] - data["low"]).rolling(14).mean()
    # Buy dips, but only while the long-term trend is up
    entry = (rsi < 30) & (data["close"] > trend)
    # The stop follows the volatility of the market
    stop_loss = data["close"].shift(1) - 2 * atr
    exit_signal = (rsi > 60) | (data["close"] < stop_loss)
    data["signal"] = np.where(entry, 1, np.where(exit_signal, -1, 0))
    # One percent of the capital is at risk
    data["position_size"] = 0.01 * capital / (2 * atr)
    returns = data["close"].pct_change() * data["signal"].shift(1)
    data["equity"] = capital * (1 + returns).cumprod()
    return data
'''
FENCED = f"```python\n{CODE}```"
BEST = f"{REASONING}\n\n{FENCED}"
SHORT = """The market is oversold when the RSI is below 30, so we buy then and sell when it is above 70.

```python
def rsi_signals(close, period=14):
    change = close.diff()
    gain = change.clip(lower=0).rolling(period).mean()
    loss = -change.clip(upper=0).rolling(period).mean()
    rsi = 100 - 100 / (1 + gain / loss)
    return {"entry": rsi < 30, "exit": rsi > 70}
```"""
NO_EXIT = "```python\ndef rsi_entry(close):\n    rsi = calculate_rsi(close)\n    buy = rsi < 30\n    return buy\n```"
BACKTRADER = '''```python
import backtrader as bt


class MacdCross(bt.Strategy):
    """Trade the crossings of the MACD and its signal line with a stop of two ATR."""

    params = dict(fast=12, slow=26, stop_mult=2.0, risk=0.01)

    def __init__(self):
        self.macd = bt.indicators.MACD(self.data.close, period_me1=self.p.fast)
        self.cross = bt.indicators.CrossOver(self.macd.macd, self.macd.signal)
        self.atr = bt.indicators.ATR(self.data, period=14)

    def next(self):
        if not self.position:
            if self.cross > 0:
                self.buy(size=self.broker.getvalue() * self.p.risk / self.atr[0])
                self.stop_price = self.data.close[0] - self.p.stop_mult * self.atr[0]
        elif self.cross < 0 or self.data.close[0] < self.stop_price:
            self.close()
```'''
CHINESE = '''当RSI低于30时市场处于超卖状态，卖方的力量已经衰竭，因此我们买入。

当RSI高于70时卖出，或者在价格跌破止损位时离场。每次交易的风险控制在资金的百分之一。

在强烈的下跌趋势中这个策略会失效，因为超卖可以持续很久。

```python
def rsi_signals(data, period=14):
    """计算买入和卖出的信号，并且给出止损的价格。"""
    change = data["close"].diff()
    gain = change.clip(lower=0).rolling(period).mean()
    loss = -change.clip(upper=0).rolling(period).mean()
    rsi = 100 - 100 / (1 + gain / loss)
    # 超卖时买入
    buy_signal = rsi < 30
    sell_signal = rsi > 70
    stop_loss = data["close"] * 0.98
    return buy_signal, sell_signal, stop_loss
```'''


def grade(answer, info=INFO, **options) -> dict:
    result = compute_score("trading", answer, "", info, **options)
    assert -1 <= result["score"] <= 1
    assert all(isinstance(part, str) or math.isfinite(part) for part in result.values())
    return result


def score(answer, info=INFO, **options) -> float:
    return grade(answer, info, **options)["score"]


def elements(text: str) -> set[str]:
    """The elements of a strategy that are there at all."""
    found = grade(f"```python\n{text}\n```")
    return {name for name in ("entry", "exit", "risk", "indicators", "backtest") if found[name]}


@pytest.mark.parametrize(
    ("answer", "band"),
    [
        (BEST, "excellent"),
        (CHINESE, "excellent"),
        (BACKTRADER, "good"),
        (SHORT, "good"),
        (SAMPLE, "good"),
        (NO_EXIT, "poor"),
        (REASONING, "poor"),
        (BEST.replace("(rsi < 30)", "(rsi < 30"), "poor"),
        ("", "poor"),
    ],
    ids=[
        "best",
        "chinese",
        "backtrader",
        "short",
        "sample",
        "no_exit",
        "text_only",
        "syntax_error",
        "empty",
    ],
)
def test_bands(answer, band):
    assert grade(answer)["band"] == band


def test_order():
    no_risk = SHORT.replace("The market", "A market")
    broken = BEST.replace("(rsi < 30)", "(rsi < 30")
    ranked = [BEST, FENCED, SAMPLE, NO_EXIT, broken, ""]
    scores = list(map(score, ranked))
    assert scores == sorted(scores, reverse=True) and len(set(scores)) == len(scores)
    assert score(BEST) > score(no_risk) > score(NO_EXIT)
    assert 0.3 < score(SAMPLE) < score(BEST) - 0.3


def test_the_empty_answer_is_the_lowest():
    lowest = grade("")
    assert lowest["score"] == pytest.approx(-0.8) and lowest["outcome"] == "no_code"
    for nothing in (
        None,
        3,
        b"x",
        [],
        " \n\t",
        "```python\n```",
        "I can't do that.",
        "<think>" + BEST,
    ):
        assert lowest["score"] <= score(nothing) < lowest["score"] + 0.05


# None of it may pay.
SOUP = (
    "rsi macd buy sell entry exit stop_loss take_profit position_size risk backtest sharpe drawdown"
)


def code(*lines: str) -> str:
    return "\n".join(["```python", *lines, "```"])


def strategy(*lines: str, arguments: str = "data") -> str:
    return code(f"def strategy({arguments}):", *(f"    {line}" for line in lines))


NAMES = SOUP.split()
ATTACKS = {
    "keywords": SOUP,
    "keywords as sentences": "We use the rsi and the macd for the entry and the exit, and the stop for the risk. " * 9,
    "prompt": PROMPT,
    "prompt again and again": f"{PROMPT}. " * 50,
    "bare names": code("; ".join(NAMES)),
    "comments": code(*(f"# {name} is used here" for name in NAMES), "x = 1"),
    "texts": code(f"text = '{SOUP}'", "print('buy', 'sell', 'stop_loss', text)"),
    "docstring": strategy(f'"""{SOUP}"""', "return data"),
    "constants": code(*(f"{name} = 1" for name in NAMES)),
    "constants returned": strategy(*(f"{name} = 1" for name in NAMES), f"return {', '.join(NAMES)}"),
    "stubs": code(*(f"def {name}(data): pass" for name in NAMES)),
    "arguments": strategy(f"return {' + '.join(NAMES)}", arguments=", ".join(NAMES)),
    "constant conditions": strategy("buy = 1 < 2", "sell = 2 > 1", "return buy, sell"),
    "itself": strategy("buy = rsi < rsi", "sell = rsi > rsi", "return buy, sell", arguments="rsi"),
    "unused": strategy("rsi = data.rolling(3).mean()", "buy = rsi < 30", "sell = rsi > 70",
                       "stop_loss = rsi * 0.9", "return 0"),
    "after return": strategy("return 0", "rsi = data.rolling(3).mean()", "buy = rsi < 30",
                             "sell = rsi > 70", "return buy, sell"),
    "never": strategy("if 0:", "    return {'buy': data.rsi() < 3, 'sell': data.rsi() > 7}", "return 0"),
    "hidden": strategy("rsi = data.rsi(14)", "return {'buy': rsi < 3, 'sell': rsi > 7}").replace("def s", "def _s"),
    "printed": strategy("if data.rsi(14) < 30:", "    print('buy')", "else:", "    print('sell')"),
    "other code": code("import math", "def area(radius):", '    """Return the area of a circle."""',
                       "    if radius < 0:", "        raise ValueError('negative')", "    return math.pi * radius**2"),
    "another language": '```json\n{"entry": "rsi < 30", "exit": "rsi > 70", "stop_loss": 0.02}\n```',
}  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks(attack):
    assert grade(ATTACKS[attack])["band"] == "poor"
    assert score(ATTACKS[attack]) < 0


REPEATS = {
    "functions": SAMPLE + "".join(SAMPLE.replace("rsi_strategy", f"rsi_strategy_{i}") for i in range(30)),
    "comments": SAMPLE.replace("# Risk management\n", "# Risk management\n" * 50),
    "keywords in comments": SAMPLE + f"\n# {SOUP}" * 50,
    "a keyword text": SAMPLE.replace("    return", f"    text = '{SOUP}'\n    return"),
    "bare names": SAMPLE.replace("    return", f"    {'; '.join(SOUP.split())}\n    return"),
    "dead code": SAMPLE + "    atr = data.rolling(3).std()\n    take_profit = atr * 2\n    return atr, take_profit\n",
}  # fmt: skip


@pytest.mark.parametrize("attack", REPEATS)
def test_more_of_it_does_not_pay(attack):
    assert score(REPEATS[attack]) <= score(SAMPLE) + 0.01


def test_repeated_text_does_not_pay():
    once = score(BEST)
    assert score(BEST * 30) < once
    assert score(f"{REASONING}\n\n" * 30 + FENCED) < once
    assert score(f"{PROMPT}.\n{FENCED}") <= score(FENCED)
    assert score(f"{SOUP}\n{FENCED}") <= score(FENCED)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def f(rsi):\n    return {'entry': rsi < 30}", "entry"),
        ("def should_buy(rsi):\n    return rsi < 30", "entry"),
        ("def f(bar, rsi):\n    if rsi < 30:\n        return 'BUY'\n    return 'HOLD'", "entry"),
        ("def f(bar, rsi):\n    return 'sell' if rsi > 70 else 'hold'", "exit"),
        ("def f(self):\n    if self.fast > self.slow:\n        self.buy()", "entry"),
        ("def f(self):\n    if self.rsi > 70:\n        self.position.close()\n    else:\n        self.buy()",
         "entry exit"),
        ("def f(rsi):\n    return print(rsi < 30)", ""),
        ("def f(fast, slow):\n    position = (fast > slow).astype(int)\n    return position", "entry exit"),
        ("def f(fast, slow):\n    signal = np.where(fast > slow, 1, -1)\n    return signal", "entry exit"),
        ("def f(fast, slow):\n    signal = np.where(fast > slow, 1, 0)\n    return signal", "entry"),
        ("def f(df):\n    df.loc[df['rsi'] > 70, 'signal'] = -1", "exit"),
        ("def f(df):\n    long_ma = df.rolling(9).mean()\n    return long_ma", "indicators"),
        ("def f(df):\n    if len(df) > 9:\n        return 'buy'", ""),
        ("def f(mode):\n    if mode == 'fast':\n        return 'buy'", ""),
        ("def f(close):\n    return vbt.Portfolio.from_signals(close, entries=close > 1, sl_stop=0.1)",
         "entry risk backtest"),
        ("def f(price, atr):\n    stop_loss = price - 2 * atr\n    return stop_loss", "risk"),
        ("def f(equity, atr):\n    size = 0.01 * equity / atr\n    return size", "risk"),
        ("def f(price):\n    stop_loss = 0.02\n    return price", ""),
        ("def f(close):\n    equity = (1 + close.pct_change()).cumprod()\n    return equity", "backtest"),
        ("class A(Strategy):\n    def init(self):\n        self.r = self.I(talib.RSI, self.data.Close)\n"
         "    def next(self):\n        if crossover(self.r, 30):\n            self.buy(sl=self.data.Close * 0.9)",
         "entry risk indicators"),
    ],
)  # fmt: skip
def test_elements(text, expected):
    assert elements(text) == set(expected.split())


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("rsi = relative_strength_index(", "rsi = nowhere_defined("), "undefined"),
        (("shift(1)", "shift(-1)"), "look-ahead"),
        (("rsi > 60", "rsi > 160"), "threshold"),
    ],
)
def test_faults_cost(change, fault):
    worse = grade(BEST.replace(*change))
    assert worse["faults"] == 1
    assert worse["technical_accuracy"] < grade(BEST)["technical_accuracy"]


TREND = 'trend = data["close"].rolling(20).mean()'
FUTURE = {
    "keyword": 'entry = data["close"].shift(periods=-1) > trend',
    "a name": 'n = 3; entry = data["close"].shift(-n) > trend',
    "a column": 'data["next"] = data["close"].shift(-1); entry = data.next > trend',
    "change": 'entry = data["close"].pct_change(-1) > 0',
    "difference": 'entry = data["close"].diff(periods=-2) > 0',
    "roll": 'entry = np.roll(data["close"], -1) > trend',
    "fill": 'trend = trend.bfill(); entry = data["close"] > trend',
    "fill by method": 'trend = trend.fillna(method="bfill"); entry = data["close"] > trend',
    "interpolation": 'trend = trend.interpolate(); entry = data["close"] > trend',
    "centre": 'trend = data["close"].rolling(9, center=True).mean(); entry = data["close"] > trend',
    "all of it": 'c = data["close"]; entry = (c - c.mean()) / c.std() < -1',
    "quantile": 'top = data["close"].quantile(0.9); entry = data["close"] > top',
    "reversed": 'trend = data["close"][::-1].rolling(9).mean()[::-1]; entry = data["close"] > trend',
    "sorted": 'data = data.sort_index(ascending=False); entry = data["close"].shift(1) > data["close"]',
    "reindex": 'h = data["close"].resample("1h").last(); trend = h.reindex(data.index, method="ffill"); '
    'entry = data["close"] > trend',
    "group": 'trend = data["close"].groupby(data.day).transform("max"); entry = data["close"] > trend',
    "polars": 'data = data.with_columns(pl.col("close").shift(-1).alias("next")); entry = data["next"] > trend',
    "same bar": 'entry = data["close"] > trend; position = np.where(entry, 1, 0); '
    'data["pnl"] = position * data["close"].pct_change()',
    "loop": 'entry = np.zeros(len(data)); c = data["close"].values\nfor i in range(9, 99):\n'
    "    entry[i] = c[i + 1] > c[i] * 1.01",
}  # fmt: skip
PAST = {
    "shift": 'entry = data["close"].shift(1) > trend.shift(periods=2)',
    "fill": 'trend = trend.ffill().fillna(0); entry = data["close"] > trend',
    "window": 'c = data["close"]; entry = (c - c.rolling(60).mean()) / c.rolling(60).std() < -1',
    "expanding": 'top = data["close"].expanding().quantile(0.9); entry = data["close"] > top',
    "twice reversed": 'data = data.sort_index(ascending=False).sort_index(); entry = data["close"].shift(1) > trend',
    "weeks": 'h = data["close"].resample("W").last(); trend = h.reindex(data.index, method="ffill"); '
    'entry = data["close"] > trend',
    "symbols": 'trend = data.groupby("symbol")["close"].transform(lambda x: x.rolling(9).mean()); '
    'entry = data["close"] > trend',
    "side by side": 'z = data.groupby("date")["score"].transform(lambda x: (x - x.mean()) / x.std()); entry = z > 1',
    "next return": 'entry = data["close"] > trend; position = np.where(entry, 1, 0); '
    'data["pnl"] = position * data["close"].pct_change().shift(-1)',
    "shifted position": 'entry = data["close"] > trend; data["position"] = entry.astype(int).shift(1).fillna(0); '
    'data["pnl"] = data["position"] * data["close"].pct_change()',
    "metric": 'entry = data["close"] > trend; r = data["close"].pct_change(); data["sharpe"] = r.mean() / r.std()',
    "label": "y = data['close'].shift(-1) > data['close']; model = data.model(); model.fit(data[['rsi']], y); "
    "entry = model.predict(data[['rsi']]) > 0.6",
    "loop": 'entry = np.zeros(len(data)); c = data["close"].values\nfor i in range(9, 99):\n'
    "    entry[i + 1] = c[i] > c[i - 1] * 1.01",
}  # fmt: skip


def looks_ahead(text: str) -> bool:
    body = "\n".join(["def strategy(data):", f"    {TREND}", textwrap.indent(text, "    ")])
    end = '\n    data["signal"] = np.where(entry, 1, np.where(data["close"] < trend, -1, 0))\n    return data'
    tree = ast.parse(f"import numpy as np\nimport polars as pl\n{body}{end}")
    return "looks ahead" in Strategy(tree, Flow(tree)).faults


@pytest.mark.parametrize("name", FUTURE)
def test_data_of_the_future_is_seen(name):
    assert looks_ahead(FUTURE[name])


@pytest.mark.parametrize("name", PAST)
def test_data_of_the_past_is_no_fault(name):
    assert not looks_ahead(PAST[name])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=5), st.booleans())
def test_shifts_add_up_and_a_turn_turns_them(shifts, turned):
    chain = "".join(f".shift({n})" for n in shifts)
    chain = f".iloc[::-1]{chain}.iloc[::-1]" if turned else chain
    ahead = looks_ahead(f'entry = data["close"]{chain} > 5')
    assert ahead is ((sum(shifts) > 0) if turned else (sum(shifts) < 0))


@pytest.mark.parametrize(
    "condition",
    ['(data["close"] > data["close"] + 1)', '(data["close"] == data["close"].shift(0))', "(rsi < 30) & (rsi > 70)"],
)  # fmt: skip
def test_a_condition_that_says_nothing_is_no_entry(condition):
    worse = grade(BEST.replace('(rsi < 30) & (data["close"] > trend)', condition))
    assert worse["faults"] and worse["incomplete"] and worse["score"] < 0.7


NOTEBOOK = {
    "order": "!pip install -q yfinance\n%matplotlib inline\n",
    "pip": "pip install yfinance\n",
    "timer": "%%time\n",
    "output": "files = !ls\nprint(files)\n",
    "help": "pd.DataFrame?\n",
}


@pytest.mark.parametrize("name", NOTEBOOK)
def test_lines_for_a_notebook_cost_nothing(name):
    best = score(BEST)
    for answer in (
        BEST.replace("```python\n", f"```python\n{NOTEBOOK[name]}"),
        f"```python\n{NOTEBOOK[name]}\n```\n{BEST}",
    ):
        result = grade(answer)
        assert result["outcome"] == "parsed" and result["score"] > best - 0.03
    assert grade(f"```python\n{NOTEBOOK[name]}x = (\n```")["outcome"] != "parsed"


def test_f_strings_of_later_versions():
    report = 'def report(v):\n    """Return one line about the values of a row."""\n    return '
    text = 'f"{v["name"]:>9} {", ".join(f"{x!r}" for x in v["list"])} {{}}" " end"'
    result = grade(BEST.replace(CODE, f"{CODE}\n\n{report}{text}\n"))
    assert result["outcome"] == "parsed" and result["faults"] == 0
    assert notebook.plain(text) == 'f"{(v,)}" " end"'


def test_an_answer_to_another_prompt_is_worth_less():
    other = {
        "messages": [{"role": "user", "content": "Pairs trading of KO and PEP with a z-score"}]
    }
    assert grade(BEST, other)["fit"] == 0.6 and score(BEST, other) < 0.7 < score(BEST)


def test_an_exit_that_is_the_entry_and_claims_are_faults():
    same = (
        "```python\ndef f(rsi):\n    buy = rsi < 30\n    sell = rsi < 30\n    return buy, sell\n```"
    )
    assert grade(same)["faults"] == 1
    assert grade(same.replace("sell = rsi < 30", "sell = rsi > 70"))["faults"] == 0
    claims = (
        "We buy when the MACD turns up, and the Bollinger bands tell us when it is time to sell."
    )
    assert grade(f"{claims}\n{FENCED}")["faults"] == 1


def test_the_prompt_counts():
    other = {"messages": [{"role": "user", "content": "A Donchian breakout on crude oil, weekly"}]}
    assert score(BEST) > score(BEST, other) + 0.03
    fields = {
        "name": "RSI",
        "description": "RSI reversal with a trend filter",
        "relevant_symbols": "SPY",
    }
    assert grade(BEST, fields)["reasoning_quality"] > grade(BEST, other)["reasoning_quality"]
    for nothing in (
        None,
        {},
        {"messages": None},
        {"messages": [3]},
        {"messages": "text"},
        {"name": 3},
    ):
        assert score(BEST, nothing) > 0.7


def test_where_code_is_found():
    best = score(BEST)
    halves = CODE.split("\n\n\ndef generate")
    blocks = (
        f"{REASONING}\n```python\n{halves[0]}\n```\nThen:\n```python\ndef generate{halves[1]}```"
    )
    assert score(blocks) == pytest.approx(best, abs=0.01)
    assert score(BEST.replace("```python", "```")) == pytest.approx(best, abs=0.03)
    assert score(f"{REASONING}\n\n{CODE}\nThat is all.") == pytest.approx(
        best, abs=0.06
    )  # no fence
    assert score(BEST.removesuffix("```")) == pytest.approx(best)  # never closed
    assert score(BEST.replace("\n", "\n  ")) == pytest.approx(best, abs=0.03)  # in a list
    assert score(f"<think>{SAMPLE}</think>{BEST}") == pytest.approx(best)
    assert score(f"{BEST}\n```\nCAGR: 7 %\n```") == pytest.approx(best, abs=0.01)  # some output
    broken = grade(f"{BEST}\n```python\nx = (\n```")
    assert broken["outcome"] == "syntax_error" and broken["score"] < best - 0.2


def test_all_of_the_grammar():
    """Real code of every kind; none of it is a strategy."""
    for module in (ast, dataclasses, datetime, inspect, statistics, textwrap):
        assert grade(f"```python\n{inspect.getsource(module)}\n```")["band"] == "poor"


def test_nothing_is_executed(tmp_path):
    file = tmp_path / "made"
    grade(f"```python\nopen({str(file)!r}, 'w')\nraise SystemExit\n```")
    assert not file.exists()


OPTIONS = {
    "code_quality_weight": 0.1, "reasoning_quality_weight": 0.1, "completeness_weight": 0.1,
    "technical_accuracy_weight": 0.1, "innovation_weight": 0.0, "risk_management_bonus": 0.0,
    "documentation_bonus": 0.0, "syntax_error_penalty": -0.1, "incomplete_penalty": -0.1,
}  # fmt: skip


def test_every_option_changes_the_score():
    assert set(OPTIONS) == set(defaults(Options))
    for name, value in OPTIONS.items():
        answer = "" if name.endswith("_penalty") else BEST
        assert score(answer, **{name: value}) != score(answer), name


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("value", [math.nan, math.inf, "1", True, None])
def test_bad_values_are_refused(name, value):
    with pytest.raises(ValueError, match="must be"):
        grade(BEST, **{name: value})


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="at least 0"):
        grade(BEST, innovation_weight=-0.1)
    with pytest.raises(ValueError, match="at most 1"):
        grade(BEST, documentation_bonus=1.1)
    with pytest.raises(ValueError, match="at most 0"):
        grade(BEST, incomplete_penalty=0.1)
    with pytest.raises(ValueError, match="Did you mean completeness_weight"):
        grade(BEST, completness_weight=0.1)


@pytest.mark.parametrize("options", [{}, {"documentation_bonus": 0}, {"syntax_error_penalty": -2}])
def test_bars(options):
    found = bars(**options)
    assert found["range"] == (-1.0, 1.0)
    assert score(reference_answer(BEST), **options) >= found["reference"] > found["empty"]
    for nothing in ("", "lorem ipsum dolor sit amet", SOUP):
        assert score(nothing, **options) <= found["empty"]
    assert reference_answer("") is None and reference_answer(None) is None
    with pytest.raises(ValueError, match="unknown option"):
        bars(nosuch=1)


@settings(max_examples=50, deadline=None)
@given(
    st.text()
    | st.text(st.sampled_from("`~\n #()[]{}:='\"\\abx<>.,@\0\ud800\x1b超卖"), max_size=300)
)
def test_any_text(text):
    for answer in (text, f"```python\n{text}\n```", f"{text}\n{SAMPLE}"):
        grade(answer, {"messages": [{"role": "user", "content": text}]})


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_damage_to_a_good_answer(data):
    start = data.draw(st.integers(0, len(BEST)))
    end = data.draw(st.integers(start, len(BEST)))
    grade(BEST[:start] + data.draw(st.text(max_size=5)) + BEST[end:])


BOMBS = {
    "brackets": "(" * 50_000,
    "closed brackets": "[" * 99 + "]" * 99,
    "minus": "x = " + "-" * 19_000 + "1",
    "not": "x = " + "not " * 4_000 + "y",
    "lambda": "x = " + "lambda: " * 2_000 + "1",
    "sum": "x = " + " + ".join(["a"] * 5_000),
    "attributes": "x = a" + ".b" * 9_000,
    "calls": "x = a" + "()" * 9_000,
    "elif": "if a: b = 1\n" + "elif a: b = 1\n" * 1_200,
    "blocks": "\n".join(" " * i + "if a < b:" for i in range(99)) + "\n" + " " * 99 + "buy = 1",
    "functions": "\n".join(" " * i + "def f():" for i in range(95)) + "\n" + " " * 96 + "return 1",
    "number": "x = " + "9" * 19_000,
    "targets": "a = " * 4_500 + "f(x)",
    "tuple": ",".join(f"a{i}" for i in range(1_500)) + " = f(" + ",".join(f"x{i}" for i in range(1_500)) + ")",
    "guards": "def f(a, x):\n if " + " and ".join(f"a{i} < {i}" for i in range(500)) + ":\n"
    + "".join(f"  buy{i} = x + y\n" for i in range(500)),
    "comparison": "x = " + " < ".join(["a"] * 5_000),
    "continued": "\\\n" * 9_000 + "x = 1",
    "indented": "\t" * 200_000 + "x = 1",
    "null": "x = 1\0",
    "surrogate": "x = '\ud800'",
    "fences": "```" * 60_000,
    "open fences": "```python\n" * 20_000,
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs(bomb):
    start = time.process_time()
    for answer in (BOMBS[bomb], f"```python\n{BOMBS[bomb]}\n```"):
        assert grade(answer)["band"] == "poor"
    assert time.process_time() - start < 10  # 1 here


PIECES = {
    "word": "buy ",
    "line": "x = rsi < 30\n",
    "prose": "We buy because it is low. ",
    "space": " ",
    "han": "买入",
}


@pytest.mark.parametrize("name", PIECES)
def test_linear_time(name):
    def seconds(length: int) -> float:
        start = time.process_time()
        grade((PIECES[name] * length)[:length])
        return time.process_time() - start

    seconds(1000)
    short = min(seconds(20_000) for _ in range(3))
    assert seconds(200_000) < 30 * short + 0.1
    assert seconds(1_000_000) < 150 * short + 0.5
