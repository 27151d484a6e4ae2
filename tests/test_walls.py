"""Who may import whom: the walls of the design, read from the sources."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mvlib"
LIGHT = ("registry", "names", "tasks", "errors", "weights", "hub", "enums", "builders", "data.labels",
         "torchvision_modules", "torchvision",
         "scheduler.schedules", "scheduler.factory", "memory", "compare", "charts", "report", "costs", "query",
         "train.arguments", "train.recipes", "train.pictures", "train.fine_tuning", "files", "threads",
         "data.geometry", "data.images", "data.jpeg",
         "data.dataset_info",
         "data.pil_transform", "engines.folder", "engines.runtime", "engines.run_openvino", "engines.run_onnx",
         "engines.cache", "engines.choose", "engines.openvino_runtime", "inference.session", "inference.engine_session",
         "inference.pipeline", "inference.fill", "inference.folder", "inference.inputs", "inference.parts",
         "inference.sheet", "inference.web", "inference.writers", "timm", "timm.finder", "timm.models", "timm.layers",
         "timm.data")
LIGHT_COMMANDS = ("cli", "cli.list_command", "cli.info_command", "cli.cache_command", "cli.schedule_command",
                  "cli.train_command", "cli.benchmark_command", "cli.compare_command", "cli.search_command",
                  "cli.output", "cli.export_command", "cli.finetune_command", "cli.completion_command", "cli.options",
                  "cli.colours")


def imports(path: Path) -> set[str]:
    """Absolute names of what a file of ours imports, anywhere in it but for type checkers alone."""
    module = ("mvlib", *path.relative_to(PACKAGE).with_suffix("").parts)
    package = module[:-1]
    names = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    run = (node for node in tree.body if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"))
    for node in (inner for outer in run for inner in ast.walk(outer)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else ()
            full = ".".join((*base, *(node.module.split(".") if node.module else ())))
            names.update({full, *(f"{full}.{alias.name}" for alias in node.names if alias.name != "*")})
    return names


def own_parts(path: Path) -> set[str]:
    """First part, below mvlib, of each import of ours: {"registry", "layers", ...}."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("mvlib.")}


def files(folder: str) -> list[Path]:
    return sorted((PACKAGE / folder).rglob("*.py"))


@pytest.mark.parametrize("path", files("layers"), ids=lambda p: p.name)
def test_layers_import_nothing_of_ours(path):
    assert own_parts(path) <= {"layers"}


def test_one_node_in_a_graph_is_one_wherever_it_is_imported():
    """torch.fx.wrap counts for names of the module that says it, not where the function is imported by name."""
    trees = {path: ast.parse(path.read_text(encoding="utf-8")) for path in (*files("layers"), *files("models"))}
    wrapped = {node.name for tree in trees.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)
               and any(ast.unparse(decorator) == "torch.fx.wrap" for decorator in node.decorator_list)}
    missing = []
    for path, tree in trees.items():
        said = {ast.literal_eval(node.args[0]) for node in ast.walk(tree)
                if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.fx.wrap"}
        called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
        missing += [f"{path.name}: {alias.name}" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
                    for alias in node.names if alias.name in wrapped & called - said]
    assert len(wrapped) > 20 and not missing


@pytest.mark.parametrize("path", files("models"), ids=lambda p: p.name)
def test_models_import_layers_and_the_registry_alone(path):
    face = {"builders", "enums", "names", "tasks", "torchvision_modules"}  # what people import, not a family
    face = face if path.name == "__init__.py" else set()
    assert own_parts(path) <= {"layers", "models", "registry", "errors"} | face


@pytest.mark.parametrize("path", files("data"), ids=lambda p: p.name)
def test_data_does_not_import_models(path):
    assert not own_parts(path) & {"models", "factory", "features", "loading", "cli", "train"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_nothing_imports_the_top(path):
    top = path.relative_to(PACKAGE).parts[0]
    if top not in ("cli", "__main__.py", "train", "timm"):
        assert not own_parts(path) & {"cli", "train"}
    if top != "timm":
        assert "timm" not in own_parts(path)


@pytest.mark.sample(3)
@pytest.mark.parametrize("module", [*LIGHT, *LIGHT_COMMANDS])
def test_light_modules_do_not_import_torch(module):
    code = f"import sys, importlib; importlib.import_module('mvlib.{module}'); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


QUESTIONS = """
import sys, warnings
warnings.simplefilter("ignore")
import mvlib
mvlib.list_models("*resne*t*", module="resnet", pretrained=True, exclude_filters="*x*", name_matches_cfg=True)
mvlib.list_models("resnet50", include_tags=True)
mvlib.list_pretrained("vit_*")
mvlib.list_modules()
assert mvlib.is_model("resnet50") and mvlib.is_model_pretrained("resnet50.a1_in1k")
mvlib.is_model_in_modules("resnet50", ["resnet"])
assert mvlib.get_pretrained_cfg("resnet50.a1_in1k").architecture == "resnet50"
mvlib.get_pretrained_cfg_value("resnet50", "input_size")
mvlib.get_arch_pretrained_cfgs("resnet50")
mvlib.get_arch_name("resnet50.a1_in1k")
mvlib.split_model_name_tag("resnet50.a1_in1k")
mvlib.get_deprecated_models()
mvlib.register_model_deprecations(__name__, {"old_resnet": "resnet50.a1_in1k"})
assert mvlib.is_model_pretrained("old_resnet")
dir(mvlib)

@mvlib.register_model(weights={"mine": {"sources": ["file:/nowhere"]}})
def my_model(**kwargs):
    pass

assert mvlib.model_entrypoint("my_model") is my_model
assert mvlib.list_models("my_*", pretrained=True) == ["my_model.mine"]
sys.exit("torch" in sys.modules)
"""


def test_asking_the_registry_imports_no_torch():
    assert subprocess.run([sys.executable, "-c", QUESTIONS]).returncode == 0


@pytest.mark.parametrize("arguments", [
    ["--help"], ["--version"], ["list"], ["list", "vit_*", "--pretrained"], ["list", "--modules"],
    ["info", "resnet50.imagenet1k_v2"], ["info", "vit_b_16"], ["info", "--compare", "V1", "V2"],
    ["predict", "--help"], ["train", "--help"], ["schedule", "--help"], ["validate", "--help"],
    ["inference", "--help"], ["cache", "path"], ["benchmark", "--help"], ["compare", "--help"],
    ["search", "--help"], ["export", "--help"], ["search", "top1>80 params<30M", "--sort", "gmacs"],
    ["cache", "list"], ["completion", "zsh"],
], ids=" ".join)
def test_light_commands_import_no_torch(arguments, tmp_path):
    code = """if True:
        import sys, mvlib.cli
        try:
            status = mvlib.cli.main(sys.argv[1:])
        except SystemExit as exit:
            status = exit.code
        assert not status, status
        assert "torch" not in sys.modules
    """
    environment = {"HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path), "MVLIB_CACHE": str(tmp_path), "PATH": ""}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() or arguments == ["cache", "list"]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_what_is_imported_is_there(path):
    """Imports within functions, too, which nothing else may run; a stub is for type checkers alone."""
    for name in imports(path):
        if name.startswith("mvlib.") and not PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".pyi").exists():
            module, _, attribute = name.rpartition(".")
            if module.endswith("._variants"):  # for type checkers alone
                assert PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".pyi").is_file()
            elif not hasattr(importlib.import_module(module), attribute):
                importlib.import_module(name)
