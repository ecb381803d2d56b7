"""Write the comments beside a function's arguments into its docstring, so that `help` shows them too."""

import ast
import io
import re
import textwrap
import tokenize
from collections.abc import Iterator
from pathlib import Path

WIDTH = 120


def comments(source: str) -> dict[int, str]:
    "The comment at the end of each line that has one."
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokens if t.type == tokenize.COMMENT}


def documentable(tree: ast.AST) -> Iterator[tuple[ast.FunctionDef, ast.FunctionDef | ast.ClassDef]]:
    "Every function and public method with the node whose docstring tells its arguments: for `__init__` the class."
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            inner = list(documentable(node))
            yield from ((f, node if f.name == "__init__" and ast.get_docstring(node) else where) for f, where in inner)
        elif isinstance(node, ast.FunctionDef) and (isinstance(tree, ast.Module) or node.name[0] != "_" or node.name == "__init__"):
            yield node, node


def described(function: ast.FunctionDef, notes: dict[int, str]) -> tuple[list[str], list[str]]:
    "What is said of each argument, and of the result."
    args = function.args
    named = [*args.posonlyargs, *args.args]
    ends = {id(arg): default.end_lineno for arg, default in zip(named[::-1], args.defaults[::-1])}
    ends |= {id(arg): default.end_lineno for arg, default in zip(args.kwonlyargs, args.kw_defaults) if default}
    signature = [*((a.arg, a) for a in named), *((f"*{a.arg}", a) for a in [args.vararg] if a)]
    signature += [*((a.arg, a) for a in args.kwonlyargs), *((f"**{a.arg}", a) for a in [args.kwarg] if a)]
    last = {name: ends.get(id(arg), arg.end_lineno) for name, arg in signature}
    returns = function.returns.end_lineno if function.returns else 0
    result = notes.get(returns, "")
    # a comment behind a whole signature on one line speaks of the result alone
    return [f"{k}: {notes[n]}" for k, n in last.items() if n in notes and n != returns], [result] * (result not in ("", "nothing"))


def section(title: str, entries: list[str], indent: str) -> list[str]:
    "A titled part of a docstring, one entry a paragraph with a hanging indent."
    wrap = textwrap.TextWrapper(WIDTH, initial_indent=indent + "    ", subsequent_indent=indent + "        ")
    return ["", f"{indent}{title}:", *(line for entry in entries for line in wrap.wrap(entry))] if entries else []


def documented(source: str) -> str:
    "The source of a module with `Args` and `Returns` in its docstrings; what has them already stays."
    lines, notes = source.split("\n"), comments(source)
    for function, where in sorted(documentable(ast.parse(source)), key=lambda pair: -pair[1].body[0].lineno):
        arguments, result = described(function, notes)
        text, first = ast.get_docstring(where), where.body[0]
        if not text or not (arguments or result) or re.search(r"^(Args|Returns):", text, re.M):
            continue
        indent = " " * first.col_offset
        told = [f"{indent}{line}".rstrip() for line in text.split("\n")]
        told += section("Args", arguments, indent) + section("Returns", result if where is function else [], indent)
        raw = "r" * any("\\" in line for line in told)
        lines[first.lineno - 1 : first.end_lineno] = [f'{indent}{raw}"""{told[0].strip()}', *told[1:], f'{indent}"""']
    return "\n".join(lines)


def undocumented(source: str) -> list[str]:
    "The arguments of a module's public functions and constructors that have no comment beside them."
    notes, tree = comments(source), ast.parse(source)
    entries = [(f, w) for f, w in documentable(tree) if f in tree.body or f.name == "__init__"]
    found = []
    for function, where in entries:
        args = [a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
        told = {note.split(":")[0] for note in described(function, notes)[0]} | {"self"}
        found += [f"{where.name}({arg})" for arg in args if arg not in told and not where.name.startswith("_")]
    return found


def write(package: Path) -> None:
    "Document every module of a package in place."
    for module in package.rglob("*.py"):
        if module.name != "_modidx.py":
            module.write_text(documented(module.read_text(encoding="utf-8")), encoding="utf-8")
