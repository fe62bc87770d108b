"""The databases of `sql_demo`: six small schemas, each stated once, as `Table`s of `Column`s.

The DDL and the content (`_sql_demo/content`), the compact schema text of the prompt and the questions
(`_sql_demo/templates`) are all made from it. Beside its values, a column carries the words in which
people ask for it, because a question that repeats the column's name would teach nothing but
copying.
"""

from dataclasses import dataclass

CITIES = ("Berlin", "Lisbon", "London", "Madrid", "Oslo", "Paris", "Rome", "Vienna")
COUNTRIES = ("Brazil", "Canada", "France", "India", "Japan", "Kenya", "Norway", "Spain")


@dataclass(frozen=True)
class Column:
    """One column. `kind`: label (names the row), group (few text values), number, ref (key).

    `values` are the group's values; `low` and `high` bound a number (the CHECK constraint).
    `says`: how a filter on it is put, with V for the value (group) or a pair of such texts, for
    more and for less (number). `noun` is what a question calls the column; `null` is the share of
    NULLs, `people` whether a label names people.
    """

    name: str
    kind: str
    values: tuple[str, ...] = ()
    low: int = 0
    high: int = 0
    says: tuple[str, ...] = ()
    noun: str = ""
    null: float = 0.0
    parent: str = ""
    people: bool = False

    @property
    def called(self) -> str:
        """The column's name in a question."""
        return self.noun or self.name

    @property
    def is_year(self) -> bool:
        """Whether sums and means of it say nothing."""
        return "year" in self.called


@dataclass(frozen=True)
class Table:
    """One table: `rows` rows; `plural` is what its rows are called in a question."""

    name: str
    plural: str
    rows: int
    columns: tuple[Column, ...]

    def of(self, kind: str) -> list[Column]:
        """The columns of one kind, in order."""
        return [c for c in self.columns if c.kind == kind]

    @property
    def label(self) -> str | None:
        """The column that names a row, if there is one."""
        return next((c.name for c in self.columns if c.kind == "label"), None)


@dataclass(frozen=True)
class Database:
    """A schema; `tables` has parents before children."""

    name: str
    tables: tuple[Table, ...]

    def table(self, name: str) -> Table:
        """The table called `name`."""
        return next(t for t in self.tables if t.name == name)

    def compact(self) -> str:
        """The schema as the prompt shows it: `shop: customer(id, name, city, age) ...`."""
        columns = {t.name: ", ".join(["id", *(c.name for c in t.columns)]) for t in self.tables}
        return f"{self.name}: " + " ".join(f"{name}({all_})" for name, all_ in columns.items())

    def joins(self) -> list[tuple[Table, Column, Table]]:
        """Every (child, its key column, parent)."""
        return [(t, c, self.table(c.parent)) for t in self.tables for c in t.of("ref")]


def person() -> Column:
    return Column("name", "label", people=True)


def label(name: str) -> Column:
    return Column(name, "label")


def group(name: str, values: tuple[str, ...], *says: str) -> Column:
    return Column(name, "group", values=values, says=says)


def number(name: str, low: int, high: int, *says: str, **rest) -> Column:
    return Column(name, "number", low=low, high=high, says=says, **rest)


def ref(parent: str) -> Column:
    return Column(f"{parent}_id", "ref", parent=parent)


DATABASES = (
    Database("shop", (
        Table("customer", "customers", 90, (
            person(), group("city", CITIES, "in V", "from V", "living in V"),
            number("age", 18, 80, "older than V", "younger than V"))),
        Table("product", "products", 60, (
            label("name"),
            group("category", ("books", "garden", "music", "sports", "toys"), "in V", "for V"),
            number("price", 2, 250, "above V dollars", "cheaper than V dollars"),
            number("stock", 0, 400))),
        Table("orders", "orders", 300, (
            ref("customer"), ref("product"), number("quantity", 1, 40),
            group("status", ("new", "paid", "returned", "sent"), "that are V", "with status V"))),
    )),
    Database("library", (
        Table("author", "authors", 50, (
            person(), group("country", COUNTRIES, "from V", "born in V"),
            number("born", 1900, 1995, "born after V", "born before V", noun="birth year"))),
        Table("book", "books", 140, (
            label("title"), ref("author"),
            group("genre", ("crime", "drama", "history", "poetry", "travel"), "about V", "on V"),
            number("pages", 60, 900, "longer than V pages", "shorter than V pages"),
            number("year", 1950, 2024, "after V", "before V"))),
        Table("loan", "loans", 280, (
            ref("book"), group("city", CITIES, "in V", "made in V"),
            number("days", 1, 60, "of over V days", "of under V days", null=0.1))),
    )),
    Database("school", (
        Table("teacher", "teachers", 40, (
            person(),
            group("subject", ("art", "biology", "history", "maths", "music"), "of V", "teaching V"),
            number("salary", 2000, 6000, "earning over V", "earning less than V"))),
        Table("course", "courses", 90, (
            label("title"), ref("teacher"),
            group("level", ("basic", "expert", "middle"), "at V level", "of level V"),
            number("credits", 1, 30, "worth over V credits", "worth under V credits"))),
        Table("exam", "exams", 300, (
            ref("course"), group("grade", ("fail", "good", "pass"), "graded V", "with grade V"),
            number("score", 0, 100, "scored above V", "scored below V", null=0.08))),
    )),
    Database("clinic", (
        Table("doctor", "doctors", 40, (
            person(),
            group("specialty", ("brain", "eyes", "heart", "lungs", "skin"), "for V", "treating V"),
            number("fee", 40, 400, "charging over V", "charging less than V"))),
        Table("patient", "patients", 120, (
            person(), group("city", CITIES, "in V", "from V", "living in V"),
            number("age", 1, 95, "older than V", "younger than V"),
            number("weight", 10, 130, "heavier than V kilos", "lighter than V kilos", null=0.1))),
        Table("visit", "visits", 300, (
            ref("doctor"), ref("patient"),
            number("cost", 20, 900, "above V dollars", "below V dollars"),
            number("year", 2010, 2024, "after V", "before V"))),
    )),
    Database("flights", (
        Table("airline", "airlines", 30, (
            label("name"), group("country", COUNTRIES, "from V", "based in V"),
            number("founded", 1920, 2020, "founded after V", "founded before V",
                   noun="founding year"))),
        Table("plane", "planes", 90, (
            label("model"), ref("airline"),
            group("maker", ("Airbus", "Boeing", "Cessna", "Fokker"), "by V", "made by V"),
            number("seats", 4, 500, "with over V seats", "with under V seats"))),
        Table("flight", "flights", 320, (
            ref("plane"), group("destination", CITIES, "to V", "going to V"),
            number("distance", 80, 9500, "over V miles", "under V miles"),
            number("delay", 0, 240, "delayed more than V minutes", "delayed less than V minutes",
                   null=0.1))),
    )),
    Database("league", (
        Table("team", "teams", 24, (
            label("name"), group("city", CITIES, "in V", "from V", "based in V"),
            number("founded", 1880, 2010, "founded after V", "founded before V",
                   noun="founding year"))),
        Table("player", "players", 200, (
            person(), ref("team"),
            group("position", ("attack", "defence", "goal", "midfield"), "in V", "playing in V"),
            number("age", 16, 40, "older than V", "younger than V"),
            number("goals", 0, 90, "with over V goals", "with under V goals"))),
        Table("game", "games", 260, (
            ref("team"), group("result", ("draw", "loss", "win"), "ending in a V", "with result V"),
            number("visitors", 100, 9000, "seen by over V", "seen by under V", null=0.1))),
    )),
)  # fmt: skip
