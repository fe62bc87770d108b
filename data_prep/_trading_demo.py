"""Trading strategies made from parts: an indicator with its rules, a filter, a way to limit the risk.

Rows are as a user's file has them. All code runs on a DataFrame with high, low, close and volume, and
no two rows share code or description. None of it is advice: numbers are drawn, not tested on any market.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from string import Template

SYMBOLS = "BTC-USD ETH-USD SPY QQQ IWM GLD SLV TLT AAPL MSFT NVDA XOM JPM EURUSD USDJPY GBPUSD CL=F ES=F".split()  # noqa: SIM905
MOST = 2000  # about a third of all descriptions that there are
FRAMES = ("hourly", "4-hour", "daily", "weekly")


@dataclass(frozen=True)
class Part:
    """Texts with $names; `draw` has the choices for each."""

    name: str
    code: str  # lines of the strategy, or a function
    rules: tuple[str, ...]  # expressions
    why: str
    draw: dict[str, tuple]


INDICATORS = (
    Part("RSI reversal", '''
def relative_strength_index(close, period=$n):
    """Return the relative strength index of the prices, from 0 to 100."""
    change = close.diff()
    gain = change.clip(lower=0).rolling(period).mean()
    loss = -change.clip(upper=0).rolling(period).mean()
    return 100 - 100 / (1 + gain / loss)
''', ("rsi = relative_strength_index(close)", "rsi < $low", "rsi > $high"),
         "When the RSI over $n bars falls below $low, most sellers have sold, so a bounce is likely; above"
         " $high the bounce is over.",
         {"n": (7, 9, 14, 21), "low": (20, 25, 30, 35), "high": (55, 60, 65, 70)}),
    Part("MACD cross", '''
def macd_histogram(close, fast=$fast, slow=$slow, smooth=$smooth):
    """Return the MACD minus its signal line: above zero while the momentum grows."""
    macd = close.ewm(span=fast).mean() - close.ewm(span=slow).mean()
    return macd - macd.ewm(span=smooth).mean()
''', ("macd = macd_histogram(close)", "(macd > 0) & (macd.shift(1) <= 0)", "macd < 0"),
         "When the MACD of $fast and $slow bars crosses its signal line, momentum turns up before most"
         " traders see a trend; once it is below the line, the reason for the trade is gone.",
         {"fast": (8, 10, 12), "slow": (21, 26, 30), "smooth": (5, 7, 9)}),
    Part("Moving average cross", '''
def moving_average_gap(close, fast=$fast, slow=$slow):
    """Return how far the fast moving average is above the slow one."""
    return close.rolling(fast).mean() / close.rolling(slow).mean() - 1
''', ("sma_gap = moving_average_gap(close)", "sma_gap > $gap", "sma_gap < 0"),
         "When the moving average of $fast bars is above that of $slow bars by more than $gap, the trend is"
         " up, and trends last because large orders are filled over days; below it the trend has ended.",
         {"fast": (5, 10, 20), "slow": (30, 50, 60), "gap": (0.002, 0.005, 0.01)}),
    Part("Bollinger reversal", '''
def bollinger_position(close, period=$n, width=$width):
    """Return where the price is in its Bollinger bands: 0 at the lower one, 1 at the upper one."""
    middle, spread = close.rolling(period).mean(), width * close.rolling(period).std()
    return (close - middle + spread) / (2 * spread)
''', ("bollinger = bollinger_position(close)", "bollinger < $low", "bollinger > $high"),
         "When the price leaves the lower Bollinger band of $n bars, the move is larger than usual and tends"
         " to revert to the mean; back in the upper part of the bands the profit is taken.",
         {"n": (14, 20, 30), "width": (1.5, 2.0, 2.5), "low": (0.0, 0.05, 0.1), "high": (0.5, 0.6, 0.8)}),
    Part("Donchian breakout", '''
def donchian_channel(data, enter=$n, leave=$m):
    """Return the highest high and the lowest low of the bars before each bar."""
    highest = data["high"].rolling(enter).max().shift(1)
    return highest, data["low"].rolling(leave).min().shift(1)
''', ("highest, lowest = donchian_channel(data)", "close > highest", "close < lowest"),
         "When the price breaks out above the channel of the last $n bars, there is nobody left who is"
         " waiting to sell at a loss, so the trend has room; a low of $m bars says that it has ended.",
         {"n": (20, 30, 40, 55), "m": (8, 10, 15, 20)}),
    Part("Z-score reversion", '''
def z_score(close, period=$n):
    """Return how many standard deviations the price is above its average."""
    return (close - close.rolling(period).mean()) / close.rolling(period).std()
''', ("zscore = z_score(close)", "zscore < -$deep", "zscore > $out"),
         "When the z-score over $n bars is below minus $deep, the price is far from its mean, and in a"
         " range it reverts; we do not wait for the other side but leave near the mean.",
         {"n": (20, 30, 50), "deep": (1.5, 2.0, 2.5), "out": (0.0, 0.25, 0.5)}),
    Part("Momentum", '''
def momentum_score(close, period=$n):
    """Return the rate of change in units of the volatility of the period."""
    volatility = close.pct_change().rolling(period).std()
    return close.pct_change(period) / (volatility * period**0.5)
''', ("momentum = momentum_score(close)", "momentum > $up", "momentum < $down"),
         "When the momentum over $n bars is above $up in units of its volatility, the market is trending and"
         " more buyers follow; below $down the trend is too weak to pay for its risk.",
         {"n": (20, 40, 60, 90), "up": (0.8, 1.0, 1.2), "down": (0.0, 0.1, 0.2)}),
    Part("Stochastic reversal", '''
def stochastic(data, period=$n, smooth=$smooth):
    """Return the place of the close between the lowest low and the highest high, from 0 to 100."""
    lowest = data["low"].rolling(period).min()
    span = data["high"].rolling(period).max() - lowest
    return (100 * (data["close"] - lowest) / span).rolling(smooth).mean()
''', ("stoch = stochastic(data)", "stoch < $low", "stoch > $high"),
         "When the stochastic of $n bars is below $low, the market closes at its lows and is oversold, so"
         " a small purchase moves it up; above $high it is overbought.",
         {"n": (9, 14, 21), "smooth": (3, 5), "low": (15, 20, 25), "high": (70, 75, 80)}),
)  # fmt: skip
FILTERS = (
    Part("with a trend filter", "trend = close.rolling($n).mean()", ("close > trend",),
         "We only buy while the price is above its moving average of $n bars, because dips and breakouts in"
         " an uptrend fail less often.", {"n": (100, 120, 150)}),
    Part("with a volume filter", 'volume_ratio = data["volume"] / data["volume"].rolling($n).mean()',
         ("volume_ratio > $least",),
         "We only buy when the volume is above $least of its average, since a move without volume is often"
         " a false one.", {"n": (20, 30, 50), "least": (0.6, 0.7, 0.8)}),
    Part("in calm markets", "volatility = close.pct_change().rolling($n).std()",
         ("volatility < volatility.rolling(100).quantile($part)",),
         "We only buy while the volatility is not among its highest values, because in a panic every"
         " pattern fails.", {"n": (10, 20), "part": (0.8, 0.85, 0.9)}),
)  # fmt: skip
RISKS = (
    Part("ATR stop", "stop_loss = close.shift(1) - $k * atr", ("close < stop_loss",),
         "The stop is $k ATR below the last close, so that noise does not reach it.",
         {"k": (1.5, 2.0, 2.5, 3.0)}),
    Part("trailing stop", "trailing_stop = close.rolling($n).max() - $k * atr", ("close < trailing_stop",),
         "A trailing stop $k ATR below the highest close of $n bars locks in profits as the trade goes on.",
         {"n": (10, 15, 20), "k": (2.5, 3.0, 3.5)}),
    Part("percent stop", "stop_loss = close.rolling($n).max() * (1 - $cut)", ("close < stop_loss",),
         "A loss of $cut from the highest close of $n bars ends the trade, whatever the indicator says.",
         {"n": (5, 10), "cut": (0.03, 0.05, 0.08)}),
)  # fmt: skip

CODE = Template('''import numpy as np
import pandas as pd

$function

def average_true_range(data, period=$period):
    """Return the average distance between the high and the low of a bar."""
    return (data["high"] - data["low"]).rolling(period).mean()


def generate_signals(data: pd.DataFrame, capital: float = 100_000) -> pd.DataFrame:
    """Return the data with the signal, the size of a position and the equity of the strategy."""
    data, close = data.copy(), data["close"]
    $computed
    atr = average_true_range(data)
    # The filter decides whether the market is worth a trade at all
    $filter
    entry = ($enter) & ($allowed)
    # The stop follows the market, so that a trade can only lose so much
    $stop
    exit_signal = ($leave) | ($stopped)
    data["signal"] = np.where(exit_signal, -1, np.where(entry, 1, 0))
    # A loss of one stop costs the same share of the capital in every market
    data["position_size"] = $risk * capital / ($multiple * atr)
    held = data["signal"].replace(0, np.nan).ffill().clip(lower=0).fillna(0)
    returns = close.pct_change() * held.shift(1) - $cost * held.diff().abs()
    data["equity"] = capital * (1 + returns).cumprod()
    return data
''')
REASONING = Template("""$why $wherefore

1. Entry: we buy when $entry and the filter allows it.
2. Exit: we sell when $exit, or when the stop is hit. $limit
3. Risk: each position risks $percent % of the capital, therefore its size falls when the ATR grows.

The strategy fails $weakness; costs of $cost for each change of the position are part of the backtest.""")
WEAKNESSES = (
    "in markets without direction, where false signals follow each other",
    "after gaps, when the next price is far beyond the stop",
    "when the regime changes faster than its averages do",
    "if its numbers were fitted to the past, which is why there are so few of them",
)


def rows(seed: int) -> Iterator[dict]:
    """Up to MOST rows."""
    rng, seen, number = random.Random(seed), set(), 0
    while number < MOST:
        row = one(rng)
        new = {row["source_code"], row["description"]}
        if not seen & new:
            seen |= new
            yield {"id": f"demo-{seed}-{number:06d}", **row}
            number += 1


def one(rng: random.Random) -> dict:
    """A row without its id."""
    parts = [rng.choice(kind) for kind in (INDICATORS, FILTERS, RISKS)]
    drawn = [{name: rng.choice(values) for name, values in part.draw.items()} for part in parts]

    def filled(number: int, text: str) -> str:
        return Template(text).substitute(drawn[number])

    def rule(part: int, number: int) -> str:
        return filled(part, parts[part].rules[number])

    indicator, condition, stop = parts
    cost, risk = rng.choice((0.0005, 0.001, 0.002)), rng.choice((0.005, 0.01, 0.02))
    code = CODE.substitute(
        function=filled(0, indicator.code).strip() + "\n",
        period=rng.choice((10, 14, 20)), computed=rule(0, 0), filter=filled(1, condition.code),
        enter=rule(0, 1), allowed=rule(1, 0), stop=filled(2, stop.code), leave=rule(0, 2),
        stopped=rule(2, 0), risk=risk, multiple=drawn[2].get("k", 2), cost=cost,
    )  # fmt: skip
    reasoning = REASONING.substitute(
        why=filled(0, indicator.why), wherefore=filled(1, condition.why), limit=filled(2, stop.why),
        entry=rule(0, 1), exit=rule(0, 2), percent=f"{100 * risk:g}", cost=cost,
        weakness=rng.choice(WEAKNESSES),
    )  # fmt: skip
    frame = rng.choice(FRAMES)
    description = {
        "idea": f"{frame} {condition.name}, {stop.name}",
        "entry": rule(0, 1),
        "exit": rule(0, 2),
        "risk": f"{100 * risk:g} %",
    }
    return {
        "name": indicator.name,
        "description": json.dumps(description),
        "reasoning": reasoning,
        "source_code": code,
        "relevant_symbols": rng.sample(SYMBOLS, rng.choice((1, 2))),
    }
