"""The shape of the package: layers, a sentence for every module, one module that knows the GPU's name."""
import ast
import re
import subprocess
import sys

import pytest

from tests import ROOT

PACKAGE = sorted((ROOT / "worldplay").rglob("*.py"))
SOURCES = [*PACKAGE, *ROOT.glob("*.py"), *sorted((ROOT / "tests").rglob("*.py"))]
MAX_LINES = 400


def _name(path):
    return str(path.relative_to(ROOT))


def _code_strings(tree):
    """(line, text) of every string in code; without docstrings and annotations (choices of command lines)."""
    skipped = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            skipped.add(id(node.value))
        for annotated in (getattr(node, "annotation", None), getattr(node, "returns", None)):
            skipped |= {id(part) for part in ast.walk(annotated)} if annotated is not None else set()
    return [(node.lineno, node.value) for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in skipped]


def _gpu_names(source):
    """Lines of a module's code that name CUDA."""
    tree = ast.parse(source)
    strings = [line for line, text in _code_strings(tree) if text == "cuda" or text.startswith("cuda:")]
    names = [node.lineno for node in ast.walk(tree)
             if isinstance(node, ast.Attribute) and node.attr == "cuda"]
    return sorted(strings + names)


def test_imports_point_down_only():
    # in a process of its own, because it sets up logging for the whole process
    program = ("import sys; from importlinter.cli import lint_imports; "
               "sys.exit(lint_imports(config_filename=sys.argv[1], no_cache=True))")
    result = subprocess.run([sys.executable, "-c", program, str(ROOT / "tests" / ".importlinter")], cwd=ROOT,
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff_finds_nothing():
    result = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "."], cwd=ROOT,
                            capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def _files_named_in(document):
    """Files of the package that a document's text names in back quotes, as `engine/dream.py`."""
    return re.findall(r"`([a-z_/]+\.py)`", (ROOT / document).read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_files_that_documents_name_are_there(document):
    missing = [name for name in _files_named_in(document)
               if not any((ROOT / folder / name).is_file() for folder in ("", "worldplay"))]
    assert missing == []


def test_each_walk_through_the_code_enters_at_most_15_files():
    walks = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split("\n## ")
    for title in ("Key to pixel", "Clip to checkpoint"):
        rows = re.findall(r"^\| \d+ \|", next(text for text in walks if text.startswith(title)), re.M)
        assert 5 <= len(rows) <= 15, title


def test_every_folder_of_the_package_is_one():
    folders = {path.parent for path in PACKAGE}
    assert [_name(folder) for folder in folders if not (folder / "__init__.py").is_file()] == [], \
        "without __init__.py the import contracts do not see its modules"


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_a_module_begins_with_one_sentence_on_one_line(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, "no module docstring"
    sentence = docstring.split("\n\n")[0]
    assert "\n" not in sentence and sentence.endswith(".") and len(sentence) <= 120, sentence


@pytest.mark.parametrize("path", PACKAGE, ids=_name)
def test_only_runtime_knows_the_gpu(path):
    lines = _gpu_names(path.read_text(encoding="utf-8"))
    assert not lines or path.name == "runtime.py", f"lines {lines}: ask worldplay.runtime instead"


def test_the_search_for_the_gpu_finds_it():
    assert _gpu_names('x.to("cuda")\ntorch.cuda.synchronize()\ndevice = "cuda:1"') == [1, 2, 3]
    assert _gpu_names('def f(x: Literal["cpu", "cuda"]):\n    """On "cuda" too."""\n    return cpu') == []


@pytest.mark.parametrize("path", SOURCES, ids=_name)
def test_code_is_ascii(path):
    assert path.read_text(encoding="utf-8").isascii()


@pytest.mark.parametrize("path", PACKAGE, ids=_name)
def test_files_stay_short(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES, f"more than {MAX_LINES} lines: split it"
