"""The house rules, read off the source: floors, lengths, docstrings, names, and what an import costs.

A rule holds for the files that are there; a file that does not exist yet breaks none.
"""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "mixmodal"
LONGEST_FILE = 400

# The first part of a path in the package, and the floor it lies on. An import never points up.
FLOORS = (
    "parts config kinds",
    "sequence attention rotary linear trunk convnets picture_nets adversary controls interpolant solvers sampling scans"
    " chance similarity cache coder healing",
    "features quantizers codecs heads objectives",
    "model generate layout inversion compression designs",
    "data filling optim parallel board owned stored cluster hub checkpoint growing foreign foreign_nets sharing guard"
    " diagnosis watch prepare step train compute memory track clock",
    "judge",
    "recipes chain api plan compare comparisons appraise collect report cli cli_audit cli_compare cli_data cli_doctor"
    " cli_draw cli_share curves doctor demo serve __main__ __init__",
)
FLOOR_OF = {name: number for number, names in enumerate(FLOORS) for name in names.split()}
APART = ("codecs", "heads", "objectives")
# Who may spell media, designs and kinds: what declares them, compares or loads certain ones, or shows or scores text.
NAMING = set("parts config track report appraise comparisons demo features foreign foreign_nets cli_audit plan".split())
NAMING |= {"compare"}  # tokenizer.json
EMPTY_WORDS = {"utils", "util", "helpers", "helper", "common", "misc"}
HEAVY = ("torch", "numpy")

SOURCES = {
    path.relative_to(PACKAGE): ast.parse(path.read_text("utf-8"), str(path))
    for path in sorted(PACKAGE.rglob("*.py"))
    if "__pycache__" not in path.parts
}


def floor(file: Path) -> int | None:
    """The floor of a file or module path, None if no floor names it."""
    return FLOOR_OF.get(file.parts[0].removesuffix(".py"))


def is_module(path: Path) -> bool:
    return (PACKAGE / path).is_dir() or (PACKAGE / path).with_suffix(".py").is_file()


def imports(tree: ast.AST, file: Path) -> Iterator[tuple[int, Path]]:
    """Line and path in the package of everything of the package that a file imports, anywhere in it.

    A text that spells a module of the package ("mixmodal.codecs.arrays", "mixmodal.data.prose:Prose") counts too:
    that is how modules are imported by name.
    """
    documentation = {id(node) for node in docstrings(tree)}
    for node in ast.walk(tree):
        found: list[str] = []
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = ("mixmodal", *file.parent.parts)
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, (base, node.module)))
            inside = Path(*base.split(".")[1:])
            for alias in node.names:
                # `from mixmodal import parts` means parts.py, `from mixmodal.parts import Text` means parts.py too.
                is_file = base.split(".")[0] == "mixmodal" and is_module(inside / alias.name)
                found.append(f"{base}.{alias.name}" if is_file else base)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            if re.fullmatch(r"mixmodal(\.\w+)+\.?(:\w+)?", node.value):
                found = [node.value.partition(":")[0].rstrip(".")]
        for name in found:
            first, *rest = name.split(".")
            if first == "mixmodal":
                yield node.lineno, Path(*rest) if rest else Path("__init__")


def docstrings(tree: ast.AST) -> Iterator[ast.Constant]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                yield first.value


def points_up(tree: ast.AST, file: Path) -> list[str]:
    here = floor(file)
    return [
        f"{file}:{line} is on floor {here} and imports {target} of floor {floor(target)}"
        for line, target in imports(tree, file)
        if floor(target) is not None and here is not None and floor(target) > here
    ]


def crosses(tree: ast.AST, file: Path) -> list[str]:
    """Imports between codecs, heads and objectives, and from one design to another."""
    top, wrong = file.parts[0], []
    for line, target in imports(tree, file):
        other = target.parts[0]
        if top in APART and other in APART and other != top:
            wrong.append(f"{file}:{line} imports {target}: {', '.join(APART)} never import each other")
        if top == "designs" == other and file.stem != "__init__" and len(target.parts) > 1:
            if target.parts[1] not in (file.stem, "__init__"):
                wrong.append(f"{file}:{line} imports {target}: a design never imports another")
    return wrong


def undocumented(tree: ast.Module, file: Path) -> list[str]:
    """Public things without a docstring: the module, and what has no underscore in front, at any depth of classes."""
    wrong = [] if ast.get_docstring(tree) else [f"{file} has no docstring"]
    waiting: list[ast.Module | ast.ClassDef] = [tree]
    while waiting:
        for node in waiting.pop().body:
            named = isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            if not named or node.name.startswith("_") or any(_adds_no_meaning(mark) for mark in node.decorator_list):
                continue
            if not ast.get_docstring(node):
                wrong.append(f"{file}:{node.lineno} {node.name} has no docstring")
            if isinstance(node, ast.ClassDef):
                waiting.append(node)
    return wrong


def _adds_no_meaning(decorator: ast.expr) -> bool:
    return ast.unparse(decorator).rpartition(".")[2] in ("overload", "setter", "deleter")


def words_of_media_and_designs() -> set[str]:
    """The media that parts.py declares, and the files that stand for codecs, heads, objectives and designs."""
    words = {file.stem for file in SOURCES if file.parts[0] in (*APART, "designs") and not file.stem.startswith("_")}
    for node in ast.walk(SOURCES.get(Path("parts.py"), ast.Module([], []))):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "medium":
            if isinstance(node.value, ast.Constant):
                words.add(node.value.value)
    return words


def names_spelled(tree: ast.AST, words: set[str]) -> list[str]:
    """Texts in the code, not in docstrings, that are one of `words` or a dotted name with one of them in it.

    A sentence for people (anything with a space) may use the word.
    """
    documentation = {id(node) for node in docstrings(tree)}
    return [
        f"line {node.lineno} spells {node.value!r}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
        if " " not in node.value.strip() and words.intersection(re.split(r"[^\w]+", node.value.strip()))
    ]


def modules_loaded_by(code: str) -> list[str]:
    told = f"{code}\nimport sys\nprint([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(
        [sys.executable, "-c", told], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stderr.strip().splitlines()[-1])


# The rules


def test_every_file_lies_on_a_floor():
    homeless = [f"{file}: name it in FLOORS" for file in SOURCES if floor(file) is None]
    assert not homeless, "\n".join(homeless)


def test_coverage_is_told_of_floors_0_to_3():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["coverage"]["report"]["include"]
    inner = [name for names in FLOORS[:4] for name in names.split()]
    wanted = (f"mixmodal/{name}/*" if (PACKAGE / name).is_dir() else f"mixmodal/{name}.py" for name in inner)
    assert told == sorted(wanted, key=lambda pattern: pattern.removesuffix(".py").removesuffix("/*"))


def test_imports_point_only_down_or_within_a_floor():
    wrong = [line for file, tree in SOURCES.items() for line in points_up(tree, file)]
    assert not wrong, "\n".join(wrong)


def test_codecs_heads_objectives_and_designs_keep_apart():
    wrong = [line for file, tree in SOURCES.items() for line in crosses(tree, file)]
    assert not wrong, "\n".join(wrong)


def test_no_file_is_longer_than_the_limit():
    lengths = {file: len((PACKAGE / file).read_text("utf-8").splitlines()) for file in SOURCES}
    wrong = [f"{file} has {length} lines" for file, length in lengths.items() if length > LONGEST_FILE]
    assert not wrong, "\n".join(wrong)


def test_everything_public_says_what_it_is():
    wrong = [line for file, tree in SOURCES.items() for line in undocumented(tree, file)]
    assert not wrong, "\n".join(wrong)


def test_no_file_has_a_name_that_says_nothing():
    wrong = [str(file) for file in SOURCES if EMPTY_WORDS.intersection((*file.parent.parts, file.stem))]
    assert not wrong, "\n".join(wrong)


def test_what_serves_every_design_names_no_medium_and_no_design():
    serving = {path: tree for path, tree in SOURCES.items() if len(path.parts) == 1 and path.stem not in NAMING}
    assert {Path(f"{name}.py") for name in "model generate prepare step train cli watch".split()} <= serving.keys()
    words = words_of_media_and_designs()
    wrong = [f"{path} {line}" for path, tree in serving.items() for line in names_spelled(tree, words)]
    assert not wrong, "\n".join(wrong)


def test_what_is_asked_of_codecs_objectives_and_heads_is_written_where_they_are():
    """Who adds one finds every attribute that is used where it is there."""
    written = "".join(ast.get_docstring(SOURCES[Path(floor, "__init__.py")]) for floor in APART)
    asked = re.compile(r"\b(codec|objective|head|stream\.\w+|kind_of\(.*)$|^s\.(head|codec|objective)$")
    missing = [
        f"{path}:{call.lineno} asks {ast.unparse(call.args[0])} for {call.args[1].value}"
        for path, tree in SOURCES.items()
        for call in ast.walk(tree)
        if isinstance(call, ast.Call)
        and getattr(call.func, "id", "") in ("getattr", "hasattr")
        and isinstance(call.args[1], ast.Constant)
        and asked.search(ast.unparse(call.args[0]))
        and not re.search(rf"`{call.args[1].value}\b", written)
    ]
    assert not missing, "\n".join(missing)


def test_importing_the_package_loads_neither_torch_nor_numpy():
    assert modules_loaded_by("import mixmodal") == []


def test_the_help_loads_neither_torch_nor_numpy():
    if Path("__main__.py") not in SOURCES:
        return
    code = (
        "import runpy, sys\n"
        "sys.argv = ['mixmodal', '--help']\n"
        "try:\n"
        "    runpy.run_module('mixmodal', run_name='__main__')\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
    )
    assert modules_loaded_by(code) == []


# The rules would notice


def test_an_import_that_points_up_is_noticed_however_it_is_written():
    for line in (
        "import mixmodal.model",
        "from mixmodal.model import Model",
        "from mixmodal import model",
        "from . import model",
        "from .model import Model",
        "def later():\n    from mixmodal.data.mixing import Mixture",
        "importlib.import_module('mixmodal.judge.scenes')",
        "KINDS = {'prose': 'mixmodal.data.prose:Prose'}",
        "from mixmodal import sample",
    ):
        assert points_up(ast.parse(line), Path("trunk.py")), line
    for line in ("from mixmodal.rotary import turn", "from .parts import Text", "import torch", "'''mixmodal.model'''"):
        assert not points_up(ast.parse(line), Path("trunk.py")), line
    assert not points_up(ast.parse("from ..parts import Text"), Path("codecs/new.py"))
    assert points_up(ast.parse("from ..layout import lay_out"), Path("codecs/new.py"))


def test_an_import_across_is_noticed():
    assert crosses(ast.parse("from mixmodal.heads.categorical import Categorical"), Path("codecs/new.py"))
    assert crosses(ast.parse("from ..objectives import flow"), Path("heads/new.py"))
    assert crosses(ast.parse("from mixmodal.designs import lossless"), Path("designs/new.py"))
    assert not crosses(ast.parse("from mixmodal.codecs.quantizers import Lookup"), Path("codecs/new.py"))
    assert not crosses(ast.parse("from mixmodal.codecs.text import Text"), Path("designs/new.py"))


def test_a_missing_docstring_is_noticed_on_what_is_public_only():
    source = "'''Module.'''\nclass A:\n    '''A.'''\n    def f(self): ...\n    def _g(self): ...\n"
    source += "class _B:\n    def h(self): ...\n"
    assert undocumented(ast.parse(source), Path("new.py")) == ["new.py:4 f has no docstring"]
    assert len(undocumented(ast.parse("def f():\n    def inner(): ..."), Path("new.py"))) == 2


def test_a_spelled_name_is_noticed_but_not_in_a_sentence():
    words = {"image", "flow"}
    spelled = "if medium == 'image': pass\nname = 'mixmodal.objectives.flow'\nkey = f'flow/{name}'\n"
    assert len(names_spelled(ast.parse(spelled), words)) == 3
    fine = "'''image'''\nhelp = 'the image to read'\nwidth = 'images'\nimage = 1\n"
    assert names_spelled(ast.parse(fine), words) == []


def test_the_words_are_found_in_the_source():
    if Path("parts.py") in SOURCES:
        assert {"text", "image"} <= words_of_media_and_designs()
