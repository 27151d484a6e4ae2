"""examples/first_hour.ipynb is committed without outputs, and what it says when it is run is true."""

import nbformat
import pytest
from nbclient import NotebookClient

from .conftest import EXAMPLES

PATH = EXAMPLES / "first_hour.ipynb"


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(PATH, as_version=4)


def test_it_is_clean(notebook):
    nbformat.validate(notebook)
    assert PATH.read_text(encoding="utf-8") == nbformat.writes(notebook, indent=1) + "\n"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert all(cell.metadata == {} for cell in notebook.cells)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert set(notebook.metadata.language_info) == {"name"}
    assert f"]({PATH.name})" in (EXAMPLES / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_it_runs_and_finds_what_it_says(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # of the kernel
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    NotebookClient(notebook, timeout=300, kernel_name="python3",
                   resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = {cell.source: text_of(cell) for cell in notebook.cells if cell.cell_type == "code"}

    def output(words: str) -> str:
        found, = (text for source, text in printed.items() if words in source)
        return found

    assert "tf_efficientnet_lite0.pip_in1k" in output('list_models("*lite0*"')
    assert len(output("mvlib.search").splitlines()) == 5
    assert "cat" in output("class_names_of").splitlines()[0]
    assert output("levels = ").startswith("(1, 1280) [(16, 112, 112)")
    assert float(output("train_one_epoch").rpartition("top-1 ")[2].strip().rstrip("%")) > 60  # 25 by chance
    engine = output("open_session").splitlines()
    assert len(engine) == 4 and sum(line.split()[0] == line.split()[1] for line in engine) >= 3
    images = [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs
              if "image/png" in out.get("data", {})]
    assert len(images) == 1


def text_of(cell) -> str:
    """What a cell printed, and the text of its result."""
    return "".join(out.get("text", "") or out.get("data", {}).get("text/plain", "") for out in cell.outputs
                   if out.get("name") != "stderr")
