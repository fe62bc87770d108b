"""Simulated households in simulated economies, a row for each household and year.

An economy is a path of yearly macro values around a business cycle (the output gap, percent, an AR(1)
process with coefficient 0.6): growth is 2 % plus the gap's change; unemployment is 6 % less 0.5 points
a point of the gap (Okun's law); wages grow by 2.5 % less 0.6 points a point of unemployment above 6 %
(Phillips curve); prices grow by a point less than wages. Each has its own noise. r_okun and
r_phillips are correlations over the last 12 years; u12 is the mean of unemployment at the beginning
and at the end of the year.
A household has a wage (log-normal, median 36000 in the first year's money, indexed to wages), savings,
and a latent luck in the labour market (AR(1), coefficient 0.7): the unluckiest are the unemployed, so
that their share is the unemployment rate. The employed earn their wage times the share of the year
that they work; the unemployed are given 45 % of it. Taxes are 10 % up to 20000, 20 % up to 60000, 30 %
above. What isn't consumed is saved, at 2 % interest; one year in four brings an expense of up to two years'
disposable income. One household in 20 a year makes way for a young one, with small savings or debts.
The decisions are those of a noisy policy, neither best nor random: less work and more consumption with
larger savings, plus normal noise (deviations 0.17 and 0.12), in steps of 0.01.
"""

from collections.abc import Iterator

import numpy as np

WARM_UP = 12  # years before the first row: for savings to settle, and for the correlations
BRACKETS = ((0, 0.10), (20_000, 0.20), (60_000, 0.30))


def macro(rng: np.random.Generator, years: int) -> list[dict[str, float]]:
    """The macro values of each year of one economy."""
    gap, unemployment, path = 0.0, 0.06, []
    for _ in range(years):
        before, unemployment_before = gap, unemployment
        gap = 0.6 * gap + rng.normal(0, 2.2)
        unemployment = np.clip(0.06 - 0.005 * gap + rng.normal(0, 0.0035), 0.015, 0.25)
        wages = 2.5 - 60 * (unemployment - 0.06) + rng.normal(0, 0.7)
        path.append(
            {
                "unemployment_rate": round(float(unemployment), 4),
                "gdp_growth": round(2 + gap - before + rng.normal(0, 0.3), 2),
                "wage_inflation": round(float(wages), 2),
                "price_inflation": round(float(wages - 1 + rng.normal(0, 0.6)), 2),
                "u12": round(float(unemployment + unemployment_before) / 2, 4),
            }
        )
    return path


def correlations(years: list[dict[str, float]]) -> dict[str, float]:
    """r_okun and r_phillips of these years; the first one only begins the changes."""
    columns = ("unemployment_rate", "gdp_growth", "wage_inflation")
    unemployment, growth, wages = (np.array([year[name] for year in years]) for name in columns)
    okun = np.corrcoef(np.diff(unemployment), growth[1:])[0, 1]
    phillips = np.corrcoef(unemployment[1:], wages[1:])[0, 1]
    return {"r_okun": round(float(okun), 4), "r_phillips": round(float(phillips), 4)}


def taxes(income: np.ndarray) -> np.ndarray:
    """What is paid on `income`, by brackets."""
    edges = [start for start, _ in BRACKETS[1:]] + [np.inf]
    paid = zip(BRACKETS, edges, strict=True)
    return sum(rate * (np.clip(income, start, end) - start) for (start, rate), end in paid)


def simulate(seed: int, economies: int, households: int, years: int) -> Iterator[dict]:
    """economies x years x households rows, the same for the same arguments."""
    for economy in range(economies):
        yield from _economy(np.random.default_rng([seed, economy]), economy, households, years)


def _economy(rng: np.random.Generator, economy: int, n: int, years: int) -> Iterator[dict]:
    wage = 36_000 * np.exp(rng.normal(0, 0.5, n))
    wealth = wage * rng.normal(1, 0.8, n)
    luck, work = rng.normal(size=n), np.full(n, 0.8)
    names = [f"{economy}-{i}" for i in range(n)]
    path = macro(rng, WARM_UP + years)
    for year, values in enumerate(path):
        wage *= 1 + values["wage_inflation"] / 100
        luck = 0.7 * luck + np.sqrt(1 - 0.7**2) * rng.normal(size=n)
        out = np.zeros(n, bool)
        out[np.argsort(luck)[: round(n * values["unemployment_rate"])]] = True
        income = np.where(out, 0, wage * work)
        transfer, tax = np.where(out, 0.45 * wage, 0), taxes(income)
        dpi = income + transfer - tax
        share = np.clip(wealth / np.maximum(dpi, 1), 0, 6)
        work = np.round(np.clip(0.95 - 0.06 * share + rng.normal(0, 0.17, n), 0, 1), 2)
        spent = np.round(np.clip(0.55 + 0.02 * share + rng.normal(0, 0.12, n), 0, 1), 2)
        if year >= WARM_UP:
            values |= correlations(path[year - WARM_UP : year + 1])
            for i in range(n):
                yield {
                    "household": names[i],
                    "year": year - WARM_UP,
                    "employed": not out[i],
                    "income": round(float(income[i])),
                    "transfer": round(float(transfer[i])),
                    "tax": round(float(tax[i])),
                    "dpi": round(float(dpi[i])),
                    "wealth": round(float(wealth[i])),
                    **values,
                    "work": float(work[i]),
                    "consumption": float(spent[i]),
                }
        expense = np.where(rng.random(n) < 1 / 4, 2 * rng.random(n), 0) * dpi
        wealth = 1.02 * wealth + (1 - spent) * dpi - expense
        young = rng.random(n) < 1 / 20
        wealth = np.where(young, wage * rng.normal(0.1, 0.3, n), wealth)
