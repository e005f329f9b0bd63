"""Imports run down the house, never up or in a circle (docs/architecture.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# A module may import those of the storeys below its own, and what is listed with it here.
STOREYS = [
    {"errors", "files", "gradcheck", "activations", "parquet"},
    {"cells", "inputs", "losses", "scoring", "optim", "ranking", "bootstrap"},  # mathematics
    {"sessions", "checkpoint"},
    {"tables"},
    {"rawlogs", "shop", "batches", "report"},
    {"kernels"},
    {"hyperparameters"},
    {"network"},
    {"training"},
    {"gru4rec", "narm", "baselines"},
    {"neighbours", "factors"},
    {"models", "comparison"},
    {"__init__"},
    {"cli", "runs"},
    {"options"},
    {"train", "compare", "evaluate", "recommend", "prepare", "course"},  # commands
]
MATHEMATICS = STOREYS[1] | {"activations"}
DATA = {"sessions", "tables", "rawlogs", "shop", "batches", "parquet"}
COMMANDS = STOREYS[-1] | {"options"}

FILES = {path.stem: path for path in (ROOT / "gru4rec_np").glob("*.py")}
FILES |= {f"kernels.{p.stem}": p for p in (ROOT / "kernels").glob("*.py")}
FILES |= {f"kernels.emulator.{p.stem}": p for p in (ROOT / "kernels/emulator").glob("*.py")}


def imports(path):
    """(module of ours or None, top-level package) for each import of a file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            top, *rest = name.split(".")
            yield (rest[0] if rest else "__init__") if top == "gru4rec_np" else None, top


def storey(module):
    found = [i for i, modules in enumerate(STOREYS) if module.split(".")[0] in modules]
    assert found, f"{module} has no place in the architecture: give it one here and in the docs"
    return found[0]


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_run_down(module):
    for other, _ in imports(FILES[module]):
        if other is not None and other != module.split(".")[0]:
            assert storey(other) < storey(module), f"{module} imports {other}, which stands above"


@pytest.mark.parametrize("module", sorted(MATHEMATICS))
def test_mathematics_needs_numpy_only(module):
    for other, top in imports(FILES[module]):
        assert other in (None, "activations"), f"{module} imports {other}"
        allowed = {"numpy", "scipy", "math", "typing", "types", "collections", "gru4rec_np"}
        assert top in allowed, f"{module} imports {top}"


@pytest.mark.parametrize("module", sorted(DATA))
def test_data_knows_no_model(module):
    for other, _ in imports(FILES[module]):
        assert other in {None, "errors", "files"} | DATA, f"{module} imports {other}"


@pytest.mark.parametrize("module", sorted(set(FILES) - COMMANDS))
def test_only_commands_print_and_parse(module):
    tree = ast.parse(FILES[module].read_text())
    called = {
        n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and hasattr(n.func, "id")
    }
    assert not called & {"print", "input"} or module in ("cli", "runs")
    if module != "cli":
        assert "argparse" not in {top for _, top in imports(FILES[module])}


def test_no_autograd_and_no_pickle():
    for module, path in FILES.items():
        tops = {top for _, top in imports(path)}
        assert not tops & {"torch", "jax", "tensorflow", "autograd", "pickle", "dill"}, module


def test_an_upward_import_would_be_seen(tmp_path):
    path = tmp_path / "cells.py"
    path.write_text("from gru4rec_np.network import forward\nimport gru4rec_np.gru4rec\n")
    assert [other for other, _ in imports(path)] == ["network", "gru4rec"]
    assert storey("network") > storey("cells") and storey("gru4rec") > storey("cells")


@pytest.mark.parametrize("module", sorted(FILES))
def test_public_functions_have_docstrings_and_types(module):
    tree = ast.parse(FILES[module].read_text())
    doc = ast.get_docstring(tree)
    assert doc, f"{module} says not what lives in it"
    scopes = [tree, *(n for n in tree.body if isinstance(n, ast.ClassDef))]
    for scope in scopes:
        for node in scope.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name[0] != "_":
                where = f"{module}.{node.name}"
                is_property = any("property" in ast.dump(d) for d in node.decorator_list)
                overrides = node.name in ("scores", "error")
                assert ast.get_docstring(node) or is_property or overrides, f"{where}: no docstring"
                # What Numba compiles has the types that Numba finds; shapes are in the docstrings.
                if isinstance(node, ast.FunctionDef) and not module.startswith("kernels.numba"):
                    assert node.returns is not None, f"{where}: result has no type"
                    arguments = [a for a in node.args.args if a.arg not in ("self", "cls")]
                    assert all(a.annotation for a in arguments), f"{where}: untyped argument"
