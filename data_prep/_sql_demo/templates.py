"""Templates of `sql_demo`: questions with their reference SQL, in five levels.

1 one-table filters and counts, 2 aggregates and ORDER BY ... LIMIT, 3 joins of two tables,
4 GROUP BY and HAVING, 5 subqueries and CTEs. A template is a function of a `Draw` that returns the
reference answer and the ways to ask for it; its name is the function's name. Literals come from the content.
"""

from collections.abc import Callable

from data_prep._sql_demo.draw import AGGREGATES, Draw

ORDERS = {" DESC": ("highest", "largest", "most"), "": ("lowest", "smallest", "least")}
Asked = tuple[str, list[str]]
TEMPLATES: dict[int, list[Callable[[Draw], Asked]]] = {level: [] for level in range(1, 6)}


def template(level: int):
    """Register a template of `level`."""

    def register(make: Callable[[Draw], Asked]) -> Callable[[Draw], Asked]:
        TEMPLATES[level].append(make)
        return make

    return register


@template(1)
def count(d: Draw) -> Asked:
    t = d.table()
    sql, w = d.filter(t)
    return f"SELECT COUNT(*) FROM {t.name} WHERE {sql}", [
        f"How many {t.plural} {w} are there?",
        f"Count the {t.plural} {w}.",
        f"What is the number of {t.plural} {w}?",
    ]


@template(1)
def select(d: Draw) -> Asked:
    t = d.table("label")
    sql, w = d.filter(t)
    return f"SELECT {t.label} FROM {t.name} WHERE {sql}", [
        f"List the {t.label} of all {t.plural} {w}.",
        f"Which {t.plural} {w} are there?",
        f"Show {t.plural} {w}.",
    ]


@template(1)
def select_and(d: Draw) -> Asked:
    t = d.table("label", "group", "number")
    (one, w1), (two, w2) = d.filter(t, "group"), d.filter(t, "number")
    return f"SELECT {t.label} FROM {t.name} WHERE {one} AND {two}", [
        f"List the {t.label} of all {t.plural} {w1} and {w2}.",
        f"Which {t.plural} {w2} are {w1}?",
        f"Show {t.plural} {w1} and {w2}.",
    ]


@template(1)
def lookup(d: Draw) -> Asked:
    t = d.table("label")
    c, v = d.one(t.of("group") + t.of("number")), d.value(t, t.label)
    return f"SELECT {c.name} FROM {t.name} WHERE {t.label} = '{v}'", [
        f"What is the {c.called} of '{v}'?",
        f"Give the {c.called} of the {t.name} '{v}'.",
        f"Which {c.called} does '{v}' have?",
    ]


@template(2)
def aggregate(d: Draw) -> Asked:
    t = d.table("number")
    c = d.one(t.of("number"))
    function, word = d.aggregate(c)
    where, w = d.maybe_filter(t)
    return f"SELECT {function}({c.name}) FROM {t.name}{where}", [
        f"What is the {word} {c.called} of {t.plural}{w}?",
        f"Give the {word} {c.called} of all {t.plural}{w}.",
        f"Find the {word} {c.called} for {t.plural}{w}.",
    ]


@template(2)
def top(d: Draw) -> Asked:
    t = d.table("label", "number")
    c, order, k = d.one(t.of("number")), d.one(list(ORDERS)), d.rng.randint(2, 9)
    where, w = d.maybe_filter(t)
    word = d.word(ORDERS[order])
    return f"SELECT {t.label} FROM {t.name}{where} ORDER BY {c.name}{order} LIMIT {k}", [
        f"Which {k} {t.plural}{w} have the {word} {c.called}?",
        f"Show the {k} {t.plural}{w} with the {word} {c.called}.",
        f"List the {t.label} of the {k} {t.plural}{w} with the {word} {c.called}.",
    ]


@template(2)
def distinct(d: Draw) -> Asked:
    t = d.table()
    c = d.one(t.of("group") + t.of("ref"))
    sql, w = d.filter(t)
    many = d.db.table(c.parent).plural if c.parent else f"values of {c.called}"
    return f"SELECT COUNT(DISTINCT {c.name}) FROM {t.name} WHERE {sql}", [
        f"How many different {many} are there among {t.plural} {w}?",
        f"Count the distinct {many} for {t.plural} {w}.",
    ]


@template(3)
def join_select(d: Draw) -> Asked:
    t, p, joined = d.join("label")
    sql, w = d.filter(p, dot=True)
    return f"SELECT {t.name}.{t.label} FROM {joined} WHERE {sql}", [
        f"List the {t.label} of {t.plural} of {p.plural} {w}.",
        f"Which {t.plural} belong to {p.plural} {w}?",
        f"Show {t.plural} of any {p.name} {w}.",
    ]


@template(3)
def join_count(d: Draw) -> Asked:
    t, p, joined = d.join()
    sql, w = d.filter(p, dot=True)
    return f"SELECT COUNT(*) FROM {joined} WHERE {sql}", [
        f"How many {t.plural} belong to {p.plural} {w}?",
        f"Count the {t.plural} of {p.plural} {w}.",
        f"What is the number of {t.plural} of {p.plural} {w}?",
    ]


@template(3)
def join_aggregate(d: Draw) -> Asked:
    t, p, joined = d.join("number")
    c = d.one(t.of("number"))
    function, word = d.aggregate(c)
    sql, w = d.filter(p, dot=True)
    return f"SELECT {function}({t.name}.{c.name}) FROM {joined} WHERE {sql}", [
        f"What is the {word} {c.called} of {t.plural} of {p.plural} {w}?",
        f"Find the {word} {c.called} for {t.plural} that belong to {p.plural} {w}.",
    ]


@template(3)
def join_lookup(d: Draw) -> Asked:
    t, p, joined = d.join()
    v = d.value(p, p.label)
    if t.label and d.rng.random() < 0.5:
        v = d.value(t, t.label)
        c = d.one(p.of("label") + p.of("group") + p.of("number"))
        return f"SELECT {p.name}.{c.name} FROM {joined} WHERE {t.name}.{t.label} = '{v}'", [
            f"What is the {p.name} {c.called} of '{v}'?",
            f"Give the {c.called} of the {p.name} of the {t.name} '{v}'.",
        ]
    return f"SELECT COUNT(*) FROM {joined} WHERE {p.name}.{p.label} = '{v}'", [
        f"How many {t.plural} does the {p.name} '{v}' have?",
        f"Count the {t.plural} of the {p.name} '{v}'.",
    ]


@template(4)
def group_count(d: Draw) -> Asked:
    t = d.table("group", "number")
    g = d.one(t.of("group")).name
    sql, w = d.filter(t, "number")
    return f"SELECT {g}, COUNT(*) FROM {t.name} WHERE {sql} GROUP BY {g}", [
        f"How many {t.plural} {w} are there for each {g}?",
        f"Count the {t.plural} {w} per {g}.",
        f"Show each {g} with its number of {t.plural} {w}.",
    ]


@template(4)
def group_aggregate(d: Draw) -> Asked:
    t = d.table("group", "number")
    g, c = d.one(t.of("group")).name, d.one(t.of("number"))
    function, word = d.aggregate(c)
    where, w = d.maybe_filter(t, "number")
    return f"SELECT {g}, {function}({c.name}) FROM {t.name}{where} GROUP BY {g}", [
        f"What is the {word} {c.called} of {t.plural}{w} for each {g}?",
        f"Show each {g} with the {word} {c.called} of its {t.plural}{w}.",
        f"Give the {word} {c.called} per {g} of {t.plural}{w}.",
    ]


@template(4)
def group_having(d: Draw) -> Asked:
    t = d.table("group", "number")
    g, n = d.one(t.of("group")).name, d.rng.randint(2, 60)
    sql, w = d.filter(t, "number")
    return f"SELECT {g} FROM {t.name} WHERE {sql} GROUP BY {g} HAVING COUNT(*) > {n}", [
        f"Which {g} values have more than {n} {t.plural} {w}?",
        f"List every {g} with over {n} {t.plural} {w}.",
    ]


@template(4)
def join_having(d: Draw) -> Asked:
    t, p, joined = d.join()
    n = d.rng.randint(2, 20)
    return (
        f"SELECT {p.name}.{p.label} FROM {joined} GROUP BY {p.name}.id HAVING COUNT(*) > {n}",
        [
            f"Which {p.plural} have more than {n} {t.plural}?",
            f"List every {p.name} with over {n} {t.plural}.",
        ],
    )


@template(5)
def versus_average(d: Draw) -> Asked:
    t = d.table("label", "number")
    c = d.one(t.of("number"))
    word, sign = d.one([("above", ">"), ("below", "<")])
    where, w = d.maybe_filter(t)
    mean = f"(SELECT AVG({c.name}) FROM {t.name}{where})"
    return f"SELECT {t.label} FROM {t.name} WHERE {c.name} {sign} {mean}", [
        f"Which {t.plural} have {c.called} {word} the average of {t.plural}{w}?",
        f"List the {t.label} of {t.plural} with {c.called} {word} the mean of {t.plural}{w}.",
    ]


@template(5)
def related(d: Draw) -> Asked:
    t, p, joined = d.join()
    key = joined.split(".")[1].split(" ")[0]
    sql, w = d.filter(t)
    no = d.rng.random() < 0.5
    return (
        f"SELECT {p.label} FROM {p.name} WHERE id {'NOT ' * no}IN "
        f"(SELECT {key} FROM {t.name} WHERE {sql})",
        [
            f"Which {p.plural} have {'no' if no else 'any'} {t.plural} {w}?",
            f"List the {p.plural} {'without' if no else 'with some'} {t.plural} {w}.",
        ],
    )


@template(5)
def cte(d: Draw) -> Asked:
    t = d.table("group")
    g = d.one(t.of("group") + t.of("ref"))
    function = d.one(["AVG", "MAX", "MIN"])
    word = d.word(AGGREGATES[function])
    where, w = d.maybe_filter(t)
    return (
        f"WITH c AS (SELECT COUNT(*) AS n FROM {t.name}{where} GROUP BY {g.name}) "
        f"SELECT {function}(n) FROM c",
        [
            f"What is the {word} number of {t.plural}{w} per {g.parent or g.called}?",
            f"Find the {word} count of {t.plural}{w} for any {g.parent or g.called}.",
        ],
    )
