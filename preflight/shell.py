"""Reads a shell script without running it: which commands it would start, with which words.

tree-sitter's grammar of bash gives the syntax; this follows assignments, arrays, `${X:-y}`, arithmetic, `if`, `case`,
`for`, functions and exports. No program is run: what one would print (`$(date)`) is not known, and a word with it holds
UNKNOWN. Of an `if` that can't be decided the branch for "no" is taken, which is how scripts say `if it fails`.

Variables that the script does not set are those of this process, as in a shell.
"""

import contextlib
import fnmatch
import os
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

UNKNOWN = "\ufffd"  # in place of what only a run could tell
MOST_STEPS = 100_000  # of loops and functions together
SHELL = (
    "set",
    "echo",
    "printf",
    "cd",
    "mkdir",
    "sleep",
    "shift",
    "source",
    ".",
    ":",
    "ulimit",
    "trap",
    "wait",
)


class Command(NamedTuple):
    """A program that the script would start.

    Args:
        words: its name and arguments, expanded, without redirections.
        variables: that stand before it, or were exported.
        line: of the script, from 1.
    """

    words: list[str]
    variables: dict[str, str]
    line: int


class CantRead(Exception):
    """A script with a syntax error; the message says where."""


class Exit(Exception):
    """The script ends here."""


class Script:
    """What a script does, as far as that can be known without running it.

    Args:
        text: of the script.
        arguments: `$1`, `$2`, ... and `$@`.
        environment: variables that are set before it; None: those of this process, as they are now.

    Raises CantRead.
    """

    def __init__(
        self,
        text: str,
        arguments: tuple[str, ...] = (),
        environment: Mapping[str, str] | None = None,
    ):
        import tree_sitter_bash
        from tree_sitter import Language, Parser

        tree = Parser(Language(tree_sitter_bash.language())).parse(text.encode())
        self.values: dict[str, str | list[str]] = dict(
            os.environ if environment is None else environment
        )
        self.arguments, self.has_arguments = list(arguments), bool(arguments)
        self.exported: dict[str, str] = {}
        self.functions: dict = {}
        self.commands: list[Command] = []
        self.doubts: list[str] = []  # conditions that nobody could decide
        self.steps, self.asked, self.said = 0, 0, []
        if broken := next(
            (node for node in _all(tree.root_node) if node.is_missing or node.type == "ERROR"), None
        ):
            number = broken.start_point[0]
            line = "".join(text.split("\n")[number : number + 1]).strip()[
                :80
            ]  # it may miss what comes after the end
            raise CantRead(f"line {number + 1} is no shell: {line}")
        with contextlib.suppress(Exit):
            self.run(tree.root_node)

    # What a node does. The value is its exit status: True for 0, None if nobody knows.

    def run(self, node) -> bool | None:
        """Follow one node of the syntax."""
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise Exit
        match node.type:
            case "program" | "compound_statement" | "do_group" | "else_clause" | "subshell":
                return self.run_all(node.named_children)
            case "variable_assignment" | "variable_assignments":
                parts = [node] if node.type == "variable_assignment" else node.named_children
                for part in parts:
                    self.assign(part)
                return True
            case "declaration_command":
                return self.declare(node)
            case "if_statement":
                return self.run_if(node)
            case "case_statement":
                return self.run_case(node)
            case "for_statement":
                return self.run_for(node)
            case "function_definition":
                self.functions[_text(node.child_by_field_name("name"))] = node.child_by_field_name(
                    "body"
                )
                return True
            case "list":
                return self.run_list(node)
            case "pipeline" | "redirected_statement":
                return self.run_all(
                    [child for child in node.named_children if "redirect" not in child.type]
                )
            case "negated_command":
                held = self.run(node.named_children[0])
                return None if held is None else not held
            case "test_command":
                return self.test(node.named_children[0]) if node.named_children else False
            case "command":
                return self.command(node)
        return None  # a loop until something happens, arithmetic: nothing that these scripts need

    def run_all(self, nodes) -> bool | None:
        """One after the other; the status is the last one's."""
        held: bool | None = True
        for node in nodes:
            if node.type != "comment":
                held = self.run(node)
        return held

    def run_list(self, node) -> bool | None:
        """`a && b`, `a || b`: a program is taken to go well, but where its answer is asked for (`if`, `$(...)`)."""
        left, right = node.named_children[0], node.named_children[-1]
        operator = next(child.type for child in node.children if child.type in ("&&", "||"))
        held = self.run(left)
        if held is None:
            held = not self.asked
        return self.run(right) if held == (operator == "&&") else held

    def run_if(self, node) -> bool | None:
        """The branch whose condition holds."""
        conditions = node.children_by_field_name("condition")
        ids = {child.id for child in conditions}
        held: bool | None = True
        self.asked += 1
        for condition in conditions:
            if condition.is_named:
                held = self.run(condition)
        self.asked -= 1
        if held is None:
            self.doubts.append(f"line {node.start_point[0] + 1}: {_text(conditions[0])}")
        alternatives = ("elif_clause", "else_clause")
        if held:
            body = [
                child
                for child in node.named_children
                if child.id not in ids and child.type not in alternatives
            ]
            return self.run_all(body)
        for child in node.named_children:
            if child.type == "else_clause":
                return self.run(child)
            if child.type == "elif_clause":
                held, *body = child.named_children
                if self.run(held):
                    return self.run_all(body)
        return True

    def run_case(self, node) -> bool | None:
        """The first pattern that fits."""
        value = self.word(node.child_by_field_name("value"))
        if UNKNOWN in value:
            self.doubts.append(
                f"line {node.start_point[0] + 1}: case {_text(node.child_by_field_name('value'))}"
            )
            return None
        for item in node.named_children:
            if item.type != "case_item":
                continue
            patterns = item.children_by_field_name("value")
            ids = {pattern.id for pattern in patterns}
            if any(fnmatch.fnmatchcase(value, self.word(pattern)) for pattern in patterns):
                return self.run_all([child for child in item.named_children if child.id not in ids])
        return True

    def run_for(self, node) -> bool | None:
        """Once for each word."""
        name = _text(node.child_by_field_name("variable"))
        words = [
            word for child in node.children_by_field_name("value") for word in self.words(child)
        ]
        for word in words:
            self.values[name] = word
            self.run(node.child_by_field_name("body"))
        return True

    def assign(self, node) -> str:
        """`X=y`, `X+=y`, `X=(a b)`; returns the name."""
        name, value = node.child_by_field_name("name"), node.child_by_field_name("value")
        if name.type == "subscript":
            return _text(name)  # one item of an array, or of a map
        new: str | list[str] = ""
        if value is not None and value.type == "array":
            new = [
                word
                for child in value.named_children
                if child.type != "comment"
                for word in self.words(child)
            ]
        elif value is not None:
            new = self.word(value)
        key = _text(name)
        if any(child.type == "+=" for child in node.children):
            old = self.values.get(key, [] if isinstance(new, list) else "")
            if isinstance(new, list):
                new = [*([old] if isinstance(old, str) else old), *new]
            else:
                new = (old if isinstance(old, str) else " ".join(old)) + new
        self.values[key] = new
        if key in self.exported and isinstance(new, str):
            self.exported[key] = new
        return key

    def declare(self, node) -> bool:
        """`export X=y`, `declare -a X=(...)`, `local X`, `readonly X=y`."""
        exports = node.children[0].type == "export"
        for child in node.named_children:
            key = self.assign(child) if child.type == "variable_assignment" else _text(child)
            value = self.values.get(key)
            if exports and isinstance(value, str):
                self.exported[key] = value
        return True

    def command(self, node) -> bool | None:
        """A program, a function of the script, or a word of the shell."""
        name = node.child_by_field_name("name")
        set_here = [child for child in node.named_children if child.type == "variable_assignment"]
        arguments = node.children_by_field_name("argument")
        words = [
            word for child in ([name] if name else []) + arguments for word in self.words(child)
        ]
        if not words:
            return True
        if body := self.functions.get(words[0]):
            mine, self.arguments, self.has_arguments = (
                (self.arguments, self.has_arguments),
                words[1:],
                True,
            )
            held = self.run(body)
            self.arguments, self.has_arguments = mine
            return held
        match words[0]:
            case "exit" | "return":
                raise Exit
            case "true" | ":":
                return True
            case "false":
                return False
            case "test" | "[":
                return None
            case "unset":
                for key in words[1:]:
                    self.values.pop(key, None)
                return True
            case "eval" | "exec" | "time" | "nohup" | "sudo":
                words = (
                    words[1:] if words[0] != "eval" else words[1:] and " ".join(words[1:]).split()
                )
            case "echo" | "printf":
                self.said += [word for word in words[1:] if not word.startswith("-")]
                return True
            case "pwd":
                self.said.append(os.getcwd())
                return True
            case "shift":
                number = words[1] if words[1:] and words[1].isdigit() else "1"
                self.arguments = self.arguments[int(number) :]
                return True
            case "cd" if self.asked:
                self.said.append(UNKNOWN)  # who asks for a place wants that of the script
                return True
            case word if word in SHELL:
                return True
        before = {}
        for child in set_here:
            key = _text(child.child_by_field_name("name"))
            value = child.child_by_field_name("value")
            before[key] = self.word(value) if value is not None else ""
        if words:
            self.commands.append(Command(words, self.exported | before, node.start_point[0] + 1))
        return None

    # What a word becomes.

    def words(self, node) -> list[str]:
        """A word, expanded: an array becomes several, a variable without quotes is split at spaces."""
        if node.type == "command_name":
            return self.words(node.named_children[0])
        if (several := self.array(node)) is not None:
            return several
        text = self.word(node)
        if node.type in ("simple_expansion", "expansion", "command_substitution"):
            return text.split()
        return [text]

    def array(self, node) -> list[str] | None:
        """The items of `"${X[@]}"`, `${X[*]}`, `"$@"`; None for another word."""
        inner = node
        if node.type == "string" and len(node.named_children) == 1:
            inner = node.named_children[0]
        if inner.type not in ("simple_expansion", "expansion"):
            return None
        text = _text(inner)
        items: list[str] | None = None
        if text in ("$@", "$*", "${@}", "${*}"):
            items = list(self.arguments)
        elif slice_ := re.fullmatch(r"\$\{[@*]:(\d+)\}", text):
            items = self.arguments[max(0, int(slice_[1]) - 1) :]
        elif match := re.fullmatch(r"\$\{(\w+)\[[@*]\](?:(?::?\+|:?-).*)?\}", text, re.DOTALL):
            value = self.values.get(match[1], [])
            items = [value] if isinstance(value, str) else list(value)
        joined = node is not inner and "*" in text.partition(":")[0]  # "${X[*]}" is one word
        return [" ".join(items)] if items is not None and joined else items

    def word(self, node) -> str:
        """The text of a word."""
        match node.type:
            case "raw_string":
                return _text(node)[1:-1]
            case "ansi_c_string":
                return _text(node)[2:-1]
            case "string":
                return self.between(node, quoted=True)
            case "concatenation" | "command_name":
                return self.between(node, quoted=False)
            case "simple_expansion":
                return self.variable(_text(node)[1:])
            case "expansion":
                return self.expansion(node)
            case "arithmetic_expansion":
                return self.arithmetic(node)
            case "command_substitution":
                return self.output(node)
            case "process_substitution":
                return UNKNOWN
            case "string_content":
                return re.sub(
                    r'\\([$`"\\]|\n)', lambda m: "" if m[1] == "\n" else m[1], _text(node)
                )
        text = re.sub(
            r"\\(.|\n)", lambda m: "" if m[1] == "\n" else m[1], _text(node), flags=re.DOTALL
        )
        if text == "~" or text.startswith("~/"):
            text = self.variable("HOME") + text[1:]
        return text

    def output(self, node) -> str:
        """What `$(...)` says, if it is the shell's own word that says it; UNKNOWN if a program would."""
        kept, before = self.said, len(self.commands)
        self.said, self.asked = [], self.asked + 1
        with contextlib.suppress(Exit):
            self.run_all(node.named_children)
        said, self.said, self.asked = " ".join(self.said), kept, self.asked - 1
        del self.commands[before:]
        return said or UNKNOWN

    def between(self, node, quoted: bool) -> str:
        """The parts of a word, and the text that the grammar names no part of."""
        whole, at, parts = node.text, node.start_byte, []
        end = len(whole) - 1 if quoted else len(whole)
        place = 1 if quoted else 0
        for child in node.named_children:
            parts.append(whole[place : child.start_byte - at].decode())
            array = self.array(child)
            parts.append(self.word(child) if array is None else " ".join(array))
            place = child.end_byte - at
        parts.append(whole[place:end].decode())
        return "".join(parts)

    def variable(self, name: str) -> str:
        """Its value; "" if nothing sets it, as in a shell."""
        if name in ("@", "*"):
            return " ".join(self.arguments)
        if name.isdigit():
            place = int(name)
            if not place or (place > len(self.arguments) and not self.has_arguments):
                return UNKNOWN  # the script's own name; what whoever starts it would add
            return self.arguments[place - 1] if place <= len(self.arguments) else ""
        if name == "#":
            return str(len(self.arguments)) if self.has_arguments else UNKNOWN
        if name in "?!$-_":
            return UNKNOWN
        value = self.values.get(name, "")
        return value if isinstance(value, str) else (value[0] if value else "")

    def expansion(self, node) -> str:
        """`${X}`, `${X:-y}`, `${X:=y}`, `${X:+y}`, `${X##*/}`, `${X/a/b}`, `${#X}` and their like."""
        text = _text(node)
        match = re.match(r"\$\{(!?#?)(\w+|[@*?])(?:\[([^\]]*)\])?", text)
        if match is None:
            return UNKNOWN
        sign, name, index = match.groups()
        value = self.variable(name)
        items = self.values.get(name, "")
        if index is not None and isinstance(items, list):
            if index in ("@", "*"):
                value = " ".join(items)
            else:
                place = int(index) if index.lstrip("-").isdigit() else len(items)
                value = items[place] if -len(items) <= place < len(items) else ""
        if sign == "#":
            return str(
                len(items) if index in ("@", "*") and isinstance(items, list) else len(value)
            )
        if sign == "!":
            return self.variable(value) if value else ""
        rest = text[match.end() : -1]
        operator = re.match(r":?[-=+?]|##?|%%?|//?|,,?|\^\^?|:", rest)
        if operator is None:
            return value
        if value == UNKNOWN and name.isdigit():
            value = ""
        there = value != "" if operator[0].startswith(":") else name in self.values or value != ""
        match operator[0][-1]:
            case "-" | "=" | "?":
                if there:
                    return value
                new = self.operand(node, operator[0])
                if operator[0].endswith("="):
                    self.values[name] = new
                return new if operator[0][-1] != "?" else UNKNOWN
            case "+":
                return self.operand(node, operator[0]) if there else ""
            case "#" | "%":
                return _cut(value, operator[0], rest[len(operator[0]) :])
            case "/":
                old, _, new = rest[len(operator[0]) :].partition("/")
                pattern = fnmatch.translate(old).removesuffix(r"\Z").removesuffix(r"\z")
                return re.sub(pattern, lambda _: new, value, count=0 if operator[0] == "//" else 1)
            case "," | "^":
                change = str.lower if operator[0][0] == "," else str.upper
                return change(value) if len(operator[0]) == 2 else change(value[:1]) + value[1:]
        numbers = re.fullmatch(r":\s*(-?\d+)(?::(\d+))?", rest)
        if numbers is None:
            return UNKNOWN
        begin, length = int(numbers[1]), numbers[2]
        return value[begin:] if length is None else value[begin:][: int(length)]

    def operand(self, node, operator: str) -> str:
        """What stands behind the `:-` of an expansion."""
        at = next(child for child in node.children if child.type == operator)
        parts, place = [], at.end_byte - node.start_byte
        for child in node.named_children:
            if child.start_byte < at.end_byte:
                continue
            parts.append(node.text[place : child.start_byte - node.start_byte].decode())
            array = self.array(child)
            parts.append(self.word(child) if array is None else " ".join(array))
            place = child.end_byte - node.start_byte
        parts.append(node.text[place:-1].decode())
        return "".join(parts)

    def arithmetic(self, node) -> str:
        """Whole numbers: + - * / % and brackets."""
        inner = (
            _text(node).removeprefix("$((").removesuffix("))").removeprefix("$[").removesuffix("]")
        )
        number = re.sub(
            r"\$?\{?([A-Za-z_]\w*)\}?", lambda m: f"({self.variable(m[1]) or 0})", inner
        )
        if not re.fullmatch(r"[\d\s()+*/%<>=!&|?:-]+", number):
            return UNKNOWN
        try:
            return str(_calculate(number))
        except (ArithmeticError, ValueError, SyntaxError):
            return UNKNOWN

    # What a condition says.

    def test(self, node) -> bool | None:
        """Inside of `[ ]` or `[[ ]]`."""
        match node.type:
            case "unary_expression":
                sign, operand = node.children[0], node.named_children[-1]
                if sign.type == "!":
                    held = self.test(operand)
                    return None if held is None else not held
                return self.test_word(_text(sign), self.word(operand))
            case "binary_expression":
                return self.compare(node)
            case "parenthesized_expression":
                return self.test(node.named_children[0])
            case "negation_expression" | "negated_command":
                held = self.test(node.named_children[-1])
                return None if held is None else not held
        text = self.word(node)
        return None if UNKNOWN in text else bool(text)

    def test_word(self, sign: str, text: str) -> bool | None:
        """`-z`, `-n`, and files, of which nobody knows here."""
        if UNKNOWN in text:
            return None
        return {"-z": not text, "-n": bool(text)}.get(sign)

    def compare(self, node) -> bool | None:
        """`a = b`, `a -gt b`, `a && b`."""
        left, *_, right = node.named_children
        field = node.child_by_field_name("operator")
        sign = _text(field) if field else _text(node.children[1])
        if sign in ("&&", "||", "-a", "-o"):
            two = (self.test(left), self.test(right))
            wanted = sign in ("||", "-o")
            return wanted if wanted in two else None if None in two else not wanted
        one, other = self.word(left), self.word(right)
        if UNKNOWN in one + other:
            return None
        if sign in ("=", "==", "!="):
            plain = right.type in ("string", "raw_string")
            same = one == other if plain else fnmatch.fnmatchcase(one, other)
            return same == (sign != "!=")
        if sign == "=~":
            try:
                return bool(re.search(other, one))
            except re.error:
                return None
        signs = {"-eq": "==", "-ne": "!=", "-lt": "<", "-le": "<=", "-gt": ">", "-ge": ">="}
        if sign not in signs or not all(re.fullmatch(r"-?\d+", number) for number in (one, other)):
            return None
        order = (int(one) > int(other)) - (int(one) < int(other))
        return {"==": order == 0, "!=": order != 0, "<": order < 0, "<=": order <= 0, ">": order > 0,
                ">=": order >= 0}[signs[sign]]  # fmt: skip


def _text(node) -> str:
    return node.text.decode()


def _all(node) -> Iterator:
    yield node
    for child in node.children:
        yield from _all(child)


def _cut(value: str, operator: str, pattern: str) -> str:
    """`#`, `##`: without what fits at the begin, the shortest or the longest; `%`, `%%`: at the end."""
    lengths = range(len(value) + 1) if len(operator) == 1 else range(len(value), -1, -1)
    for length in lengths:
        part = value[:length] if operator[0] == "#" else value[len(value) - length :]
        if fnmatch.fnmatchcase(part, pattern.strip("'\"")):
            return value[length:] if operator[0] == "#" else value[: len(value) - length]
    return value


def _calculate(text: str) -> int:
    """An expression of whole numbers, as a shell calculates it. Raises ArithmeticError, ValueError, SyntaxError."""
    import ast
    import operator

    signs = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Mod: operator.mod,
             ast.FloorDiv: operator.floordiv, ast.Gt: operator.gt, ast.Lt: operator.lt, ast.GtE: operator.ge,
             ast.LtE: operator.le, ast.Eq: operator.eq, ast.NotEq: operator.ne}  # fmt: skip

    def of(node: ast.expr) -> int:
        match node:
            case ast.Constant(value=int() as number):
                return number
            case ast.UnaryOp(op=ast.USub(), operand=inner):
                return -of(inner)
            case ast.BinOp(left=left, op=sign, right=right) if type(sign) in signs:
                return signs[type(sign)](of(left), of(right))
            case ast.Compare(left=left, ops=[sign], comparators=[right]) if type(sign) in signs:
                return int(signs[type(sign)](of(left), of(right)))
        raise ValueError(text)

    return of(ast.parse(text.replace("/", "//").strip(), mode="eval").body)
