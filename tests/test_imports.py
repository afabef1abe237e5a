"""Who may import whom, and through which file a heavy package comes in."""

import ast
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("tnt", "pipeline", "ablations")
FILES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))

# A room may import the rooms listed for it; launch.py joins pipeline and ablations.
DIRECTIONS = {"tnt": set(), "pipeline": {"tnt"}, "ablations": {"pipeline", "tnt"}}
COMPOSITION_ROOT = "pipeline/launch.py"

# A package that is slow, large or easily replaced comes in by one door, two where reading and writing differ.
DOORS = {
    "fvcore": {"tnt/complexity/count.py"},
    "safetensors": {"tnt/weights/tensors.py"},
    "matplotlib": {"tnt/figures/canvas.py"},
    "onnx": {"tnt/export.py"},
    "onnxruntime": {"tnt/export.py"},
    "sklearn": {"tnt/figures/data.py", "pipeline/data/packing/sources/digits.py"},
    "scipy": {"pipeline/data/packing/sources/imagenet.py", "pipeline/data/packing/sources/oxford.py"},
    "rich": {
        "tnt/commandline.py",
        "pipeline/terminal.py",
        "pipeline/progress.py",
        "pipeline/tables.py",
        "ablations/reporting/text/terminal.py",
    },
    "pandas": {"ablations/reporting/text/frames.py"},
    "deepspeed": {"pipeline/training/deepspeed_adapter.py", "pipeline/training/resharding.py"},
    "submitit": {"pipeline/launching/slurm/submission.py"},
    "hydra": {"pipeline/config/composition.py"},
    "omegaconf": {"pipeline/config/composition.py"},
    "tensorboard": {"pipeline/training/trackers.py"},
    "wandb": {"pipeline/training/trackers.py"},
    "webdataset": {"pipeline/data/loading/stream_worker.py"},
    "jinja2": {"ablations/reporting/page/render.py"},
    "markupsafe": {"ablations/reporting/page/render.py"},
    "cv2": {"pipeline/data/augmentation/randaugment.py"},
    "triton": {
        "tnt/fused/inner_backward.py",
        "tnt/fused/inner_forward.py",
        "tnt/fused/layers.py",
        "tnt/fused/ops.py",
        "tnt/fused/row_norm.py",
    },
}
# What the modules of tnt/ may import when they are imported themselves.
AT_IMPORT_IN_TNT = {"torch", "tnt", *sys.stdlib_module_names}


def imports(path: Path, inside_functions: bool = True) -> set[str]:
    """The top-level packages that a file imports, those inside functions too."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if inside_functions else iter(tree.body)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(str(node.module).split(".")[0])
    return found


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_go_one_way(path):
    room = name(path).split("/")[0]
    allowed = DIRECTIONS[room] | {room} | ({"ablations"} if name(path) == COMPOSITION_ROOT else set())
    wrong = (imports(path) & set(ROOMS)) - allowed
    assert not wrong, f"{name(path)} imports {wrong}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_heavy_packages_come_in_by_their_doors(path):
    wrong = {package for package in imports(path) & set(DOORS) if name(path) not in DOORS[package]}
    assert not wrong, f"{name(path)} imports {wrong}; their doors: {[DOORS[package] for package in wrong]}"


def test_every_door_is_used():
    for package, doors in DOORS.items():
        for door in doors:
            assert package in imports(ROOT / door), f"{door} no longer imports {package}"


@pytest.mark.parametrize("path", [path for path in FILES if name(path).startswith("tnt/")], ids=name)
def test_importing_tnt_asks_for_torch_and_nothing_else(path):
    # Kernels are written in Triton; their modules are imported when a network first uses them.
    kernels = {"triton"} if name(path) in DOORS["triton"] else set()
    assert imports(path, inside_functions=False) <= AT_IMPORT_IN_TNT | kernels


def test_importing_tnt_loads_no_heavy_package():
    heavy = ("timm", "torchvision", "PIL", "numpy.testing", "deepspeed", *DOORS)
    check = f"import sys, tnt, tnt.weights, tnt.complexity; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_importing_a_module_does_nothing(path):
    """At module level: definitions, imports, constants, and the guard of a script."""
    for node in ast.parse(path.read_text()).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        guard = isinstance(node, ast.If) and ast.unparse(node.test) in (
            "__name__ == '__main__'",
            "TYPE_CHECKING",
        )
        defined = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
        assert docstring or guard or isinstance(node, defined), f"{name(path)}:{node.lineno}"


@pytest.mark.parametrize("room", ["pipeline", "ablations", "benchmarks"])
def test_no_script_hides_another_module(room):
    """A script's folder comes first on sys.path, so a file there hides every module of its name."""
    taken = set(sys.stdlib_module_names) | set(packages_distributions())
    names = {path.stem for path in (ROOT / room).glob("*.py")} - {"__init__"}
    assert not names & taken


def test_a_wrong_import_would_be_found(tmp_path):
    (tmp_path / "module.py").write_text("def f():\n    from ablations.spec import Spec\n")
    assert imports(tmp_path / "module.py") == {"ablations"}
