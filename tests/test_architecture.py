"""Imports run down the house, never up or in a circle (docs/architecture.md).

The storeys are the folders of gru4rec_np/, read here from the disk. Files at its root are commands,
except those in `GROUND`.
"""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "gru4rec_np"
GROUND = ("errors", "files", "signals", "__init__")  # what every storey may import
COMMAND = "commands"

# "course" finds the checks in tutorials/, which import the package: the one import that leaves it.
LEAVES = {("course", "checks")}

FILES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
    for path in PACKAGE.rglob("*.py")
}


def imports(path):
    """The dotted names of what a file imports."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def module_of(name):
    """The module of ours that a dotted name lies in, or None."""
    parts = name.split(".")
    if parts[0] != "gru4rec_np":
        return None
    while len(parts) > 1:
        for module in (".".join(parts[1:]), ".".join([*parts[1:], "__init__"])):
            if module in FILES:
                return module
        parts.pop()
    return "__init__"


def storey(module):
    """The folder that a module lies in."""
    first, *rest = module.split(".")
    return first if rest or first in GROUND else COMMAND


def circle(files, group=lambda module: module):
    """A circle of imports between groups of modules, or None."""
    graph = {group(module): set() for module in files}
    for module, path in files.items():
        for name in imports(path):
            other = module_of(name)
            if other is not None and group(other) != group(module):
                graph[group(module)].add(group(other))
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return None


def test_no_storey_imports_one_above_it():
    """Each storey is imported by a higher one, so an import that runs up closes a circle."""
    assert circle(FILES, storey) is None


def test_the_ground_imports_nothing_of_ours():
    for module in ("errors", "files"):
        assert {module_of(name) for name in imports(FILES[module])} <= {None, "errors"}


def test_no_module_is_imported_in_a_circle():
    assert circle(FILES) is None


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("ops.cells", "from gru4rec_np.models.network import forward"),
        ("data.tables", "import gru4rec_np.backends"),
        ("backends.base", "from gru4rec_np.models import hyperparameters"),
        ("models.training", "from gru4rec_np.console.runs import alone"),
        ("console.report", "from gru4rec_np import train"),
    ],
)
def test_an_import_that_runs_up_is_found(module, line, tmp_path):
    planted = tmp_path / "planted.py"
    planted.write_text(line)
    assert circle({**FILES, module: planted}, storey) is not None


def test_folders_are_those_of_the_documents():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for folder in {storey(module) for module in FILES} - {COMMAND, *GROUND}:
        assert f"\n{folder}/ " in text, f"docs/architecture.md does not describe {folder}/"


@pytest.mark.parametrize("module", [m for m in FILES if storey(m) == "ops"])
def test_mathematics_needs_numpy_only(module):
    allowed = {"numpy", "scipy", "math", "typing", "types", "collections", "__future__"}
    for name in imports(FILES[module]):
        other = module_of(name)
        if other is None:
            assert name.split(".")[0] in allowed, f"{module} imports {name}"
        else:
            assert other == "errors" or storey(other) == "ops", f"{module} imports {other}"


def test_nobody_imports_a_command():
    for module, path in FILES.items():
        for name in imports(path):
            other = module_of(name)
            assert other is None or storey(other) != COMMAND, f"{module} imports {other}"


@pytest.mark.parametrize("module", sorted(FILES))
def test_only_commands_print_and_parse(module):
    if storey(module) in (COMMAND, "console"):
        return
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    called = {
        n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and hasattr(n.func, "id")
    }
    assert not called & {"print", "input"}
    assert "argparse" not in {name.split(".")[0] for name in imports(FILES[module])}


def test_no_autograd_and_no_pickle():
    banned = {"torch", "jax", "tensorflow", "autograd", "pickle", "dill"}
    for module, path in FILES.items():
        assert not {name.split(".")[0] for name in imports(path)} & banned, module


def test_nothing_else_leaves_the_package():
    local = {path.stem for path in (ROOT / "tutorials").glob("*.py")} | {"checks", "solutions"}
    leaving = {
        (module, name.split(".")[0])
        for module, path in FILES.items()
        for name in imports(path)
        if name.split(".")[0] in local | {"tests", "benchmarks", "kernels"}
    }
    assert leaving == LEAVES


@pytest.mark.parametrize("module", sorted(FILES))
def test_public_functions_have_docstrings_and_types(module):
    tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), f"{module} does not say what it contains"
    scopes = [tree, *(n for n in tree.body if isinstance(n, ast.ClassDef))]
    for scope in scopes:
        for node in scope.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                is_property = any("property" in ast.dump(d) for d in node.decorator_list)
                overrides = node.name in ("scores", "error")
                documented = ast.get_docstring(node) or is_property or overrides
                assert documented, f"{module}.{node.name}: no docstring"
