"""Who imports whom, and by which file a heavy package comes in.

One test a rule; each lists every violation. The tests at the end show that each rule finds one.
"""

import ast
import subprocess
import sys

from tests.sources import ROOT, Source, graph, hold, repository, within

SOURCES = repository()

# Each row may import the rows above it; modules and folders of one row may not import each other.
ORDER = (
    {"tnt"},
    {"pipeline.errors"},
    {"pipeline.files", "pipeline.terminal"},
    {"pipeline.processes"},
    {"pipeline.data"},
    {"pipeline.config"},
    {"pipeline.runs"},
    {"pipeline.training"},
    {"pipeline.train", "pipeline.evaluate", "pipeline.audit", "pipeline.shards"},
    {"pipeline.launching"},
    {"ablations"},
    {"pipeline.launch"},
)
ORDER_IN_DATA = (
    {"pipeline.data.randomness"},
    {"pipeline.data.images"},
    {"pipeline.data.augmentation", "pipeline.data.shards"},
    {"pipeline.data.loading", "pipeline.data.packing"},
    {"pipeline.data.settings"},
    {"pipeline.data.labels"},
    {"pipeline.data.dataset"},
)

# A package that is slow, large or easily replaced comes in by one door, two where reading and writing differ.
DOORS = {
    "fvcore": {"tnt/complexity/count.py"},
    "safetensors": {"tnt/weights/tensors.py"},
    "matplotlib": {"tnt/figures/canvas.py"},
    "onnx": {"tnt/export.py"},
    "onnxruntime": {"tnt/export.py"},
    "sklearn": {"tnt/figures/data.py", "pipeline/data/packing/sources/digits.py"},
    "scipy": {
        "ablations/reporting/judging/difference.py",
        "pipeline/data/packing/sources/matlab.py",
    },
    "rich": {
        "tnt/commandline.py",
        "pipeline/terminal.py",
        "ablations/reporting/text/terminal.py",
    },
    "pandas": {"ablations/reporting/text/files.py"},
    "deepspeed": {"pipeline/training/parallel/deepspeed_adapter.py"},
    "submitit": {"pipeline/launching/slurm/arrays.py"},
    "hydra": {"pipeline/config/composition.py"},
    "omegaconf": {"pipeline/config/composition.py"},
    "tensorboard": {"pipeline/training/trackers.py"},
    "apprise": {"pipeline/launching/slurm/notices.py"},
    "webdataset": {"pipeline/data/loading/stream_worker.py"},
    "jinja2": {"ablations/reporting/page/render.py"},
    "rocrate": {"ablations/reporting/crate.py"},
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
# What the modules of tnt/ may import when they are imported themselves. Kernels are written in Triton; their
# modules are imported when a network first uses them.
AT_IMPORT_IN_TNT = {"torch", "tnt", *sys.stdlib_module_names}


def doors(package: str) -> set[str]:
    return {path.removesuffix(".py").replace("/", ".") for path in DOORS[package]}


def row_of(module: str, order: tuple[set[str], ...]) -> tuple[int, str] | None:
    places = [(row, name) for row, names in enumerate(order) for name in names if within(module, name)]
    return places[0] if places else None


def against_the_order(sources: list[Source], order: tuple[set[str], ...]) -> list[str]:
    wrong = []
    for module, imported in graph(sources).items():
        for other, line in imported.items():
            mine, theirs = row_of(module, order), row_of(other, order)
            if mine and theirs and mine[1] != theirs[1] and mine[0] <= theirs[0]:
                wrong.append(f"{module}:{line} imports {other}")
    return wrong


def without_a_place(sources: list[Source], order: tuple[set[str], ...], folder: str) -> list[str]:
    """Modules in a folder for which the order says nothing; packages themselves hold no code."""
    packages = {source.module.rpartition(".")[0] for source in sources}
    inside = [source.module for source in sources if within(source.module, folder)]
    return [module for module in inside if row_of(module, order) is None and module not in packages]


def circles(sources: list[Source]) -> list[str]:
    """Modules that import each other, by any way round."""
    edges = graph(sources)
    reached = {module: set(others) for module, others in edges.items()}
    while True:
        wider = {
            module: others.union(*(reached[other] for other in others)) for module, others in reached.items()
        }
        if wider == reached:
            break
        reached = wider
    return sorted(
        f"{module} and {other} import each other"
        for module in edges
        for other in edges
        if module < other and other in reached[module] and module in reached[other]
    )


def past_the_doors(sources: list[Source]) -> list[str]:
    return [
        f"{source.module}:{imported.line} imports {package}; its doors: {sorted(DOORS[package])}"
        for source in sources
        for imported in source.imports
        if (package := imported.module.split(".")[0]) in DOORS and source.module not in doors(package)
    ]


def unused_doors(sources: list[Source]) -> list[str]:
    used = {
        (imported.module.split(".")[0], source.module) for source in sources for imported in source.imports
    }
    return [f"{door} does not import {package}" for package in DOORS for door in doors(package)
            if (package, door) not in used]  # fmt: skip


def relative_imports(sources: list[Source]) -> list[str]:
    return [
        f"{source.module}:{imported.line}"
        for source in sources
        for imported in source.imports
        if imported.module.startswith(".")
    ]


def more_than_torch(sources: list[Source]) -> list[str]:
    wrong = []
    for source in sources:
        allowed = AT_IMPORT_IN_TNT | ({"triton"} if source.module in doors("triton") else set())
        for imported in source.imports:
            at_import = within(source.module, "tnt") and not imported.inside_function
            if at_import and imported.module.split(".")[0] not in allowed:
                wrong.append(f"{source.module}:{imported.line} imports {imported.module}")
    return wrong


def work_at_import(sources: list[Source]) -> list[str]:
    """Module level holds definitions, imports, constants, and the guards of a script."""
    defined = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
    wrong = []
    for source in sources:
        for node in source.tree.body:
            docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            guards = ("__name__ == '__main__'", "TYPE_CHECKING")
            guard = isinstance(node, ast.If) and ast.unparse(node.test) in guards
            # A script that is run where nothing is installed says so.
            asks = isinstance(node, ast.Try) and ast.unparse(node.body) == "import pipeline"
            if not (docstring or guard or asks or isinstance(node, defined)):
                wrong.append(f"{source.module}:{node.lineno}")
    return wrong


def test_imports_go_one_way():
    hold(against_the_order(SOURCES, ORDER))


def test_imports_go_one_way_within_data():
    hold(against_the_order(SOURCES, ORDER_IN_DATA))


def test_every_module_has_a_place_in_the_order():
    hold(without_a_place(SOURCES, ORDER, "pipeline"))
    hold(without_a_place(SOURCES, ORDER_IN_DATA, "pipeline.data"))


def test_no_modules_import_each_other():
    hold(circles(SOURCES))


def test_modules_are_imported_by_their_full_names():
    hold(relative_imports(SOURCES))


def test_heavy_packages_come_in_by_their_doors():
    hold(past_the_doors(SOURCES))


def test_every_door_is_used():
    hold(unused_doors(SOURCES))


def test_importing_tnt_asks_for_torch_and_nothing_else():
    hold(more_than_torch(SOURCES))


def test_importing_tnt_loads_no_heavy_package():
    heavy = ("timm", "torchvision", "PIL", "numpy.testing", *DOORS)
    check = f"import sys, tnt, tnt.weights, tnt.complexity; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_a_module_does_nothing():
    hold(work_at_import(SOURCES))


# What each rule finds where it is broken.


def test_an_import_against_the_order_is_found_inside_a_function_too():
    low = Source("pipeline.errors", "def f():\n    from pipeline.training import engine\n")
    assert against_the_order([low, Source("pipeline.training.engine", "")], ORDER) == [
        "pipeline.errors:2 imports pipeline.training.engine"
    ]
    beside = Source("pipeline.processes.place", "import pipeline.data.labels\n")
    assert len(against_the_order([beside, Source("pipeline.data.labels", "")], ORDER)) == 1
    typed = Source("pipeline.errors", "if TYPE_CHECKING:\n    from pipeline.training import engine\n")
    assert against_the_order([typed, Source("pipeline.training.engine", "")], ORDER) == []


def test_an_import_against_the_order_of_data_is_found():
    low = Source("pipeline.data.images.decode", "from pipeline.data.shards.manifest import Manifest\n")
    assert len(against_the_order([low, Source("pipeline.data.shards.manifest", "")], ORDER_IN_DATA)) == 1


def test_a_new_module_without_a_place_is_found():
    new = [Source("pipeline.utils", ""), Source("pipeline", ""), Source("pipeline.errors", "")]
    assert without_a_place(new, ORDER, "pipeline") == ["pipeline.utils"]


def test_a_circle_of_three_is_found():
    sources = [
        Source("tnt.a", "def f():\n    import tnt.b\n"),
        Source("tnt.b", "from tnt import c\n"),
        Source("tnt.c", "from tnt.a import f\n"),
        Source("tnt.d", "from tnt.a import f\n"),
    ]
    assert circles(sources) == [
        f"tnt.{pair[0]} and tnt.{pair[1]} import each other" for pair in ("ab", "ac", "bc")
    ]


def test_a_heavy_package_at_another_door_is_found():
    sources = [Source("pipeline.train", "def f():\n    import deepspeed.ops\n")]
    assert len(past_the_doors(sources)) == 1
    assert "pipeline.config.composition does not import hydra" in unused_doors(sources)


def test_a_relative_import_is_found():
    assert relative_imports([Source("tnt.a", "from . import b\n")]) == ["tnt.a:1"]


def test_a_package_that_comes_with_tnt_is_found():
    assert more_than_torch([Source("tnt.a", "import numpy\n")]) == ["tnt.a:1 imports numpy"]
    assert more_than_torch([Source("tnt.a", "def f():\n    import numpy\n")]) == []


def test_work_at_import_is_found():
    text = '"""Title."""\nimport os\nX = 1\nprint(X)\nif __name__ == "__main__":\n    print(X)\n'
    assert work_at_import([Source("tnt.a", text)]) == ["tnt.a:4"]
