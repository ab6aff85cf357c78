"""The notebooks run from start to end, and what is committed was made by a run like that."""

import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# An address on somebody's machine: /home/..., C:\..., or where a temporary folder was.
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/<])/(?:work|root|home|Users|tmp|var|usr|opt|mnt|private)\b|\b[A-Z]:\\|0x[0-9a-f]{8,}"
)


@pytest.fixture(params=NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def notebook(request: pytest.FixtureRequest) -> nbformat.NotebookNode:
    return nbformat.read(request.param, as_version=4)


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def texts(cell: nbformat.NotebookNode) -> list[str]:
    """All that a cell put out and a person can read."""
    said = [output.get("text", "") for output in cell.outputs]
    return said + [
        text
        for output in cell.outputs
        for kind, text in output.get("data", {}).items()
        if kind.startswith("text/")
    ]


def test_a_notebook_runs_from_start_to_end_on_little_data(
    notebook: nbformat.NotebookNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEPIN_NOTEBOOK_DEALS", "1200")
    for library in ("OPENBLAS", "OMP"):  # so that two cores shared with others do not wait for each other
        monkeypatch.setenv(f"{library}_NUM_THREADS", "1")
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    assert [cell.execution_count for cell in code_cells(notebook)] == list(
        range(1, len(code_cells(notebook)) + 1)
    )
    assert list(tmp_path.iterdir()) == []


def test_the_committed_outputs_come_from_one_run_in_order(notebook: nbformat.NotebookNode) -> None:
    counts = [cell.execution_count for cell in code_cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))


def test_every_cell_that_draws_is_committed_with_its_picture(notebook: nbformat.NotebookNode) -> None:
    drawing = [cell for cell in code_cells(notebook) if "plt.show()" in cell.source]
    assert len(drawing) >= 5
    for cell in drawing:
        pictures = [output for output in cell.outputs if "image/png" in output.get("data", {})]
        assert len(pictures) == cell.source.count("plt.show()"), cell.source


def test_the_committed_outputs_name_no_place_on_a_machine(notebook: nbformat.NotebookNode) -> None:
    for cell in code_cells(notebook):
        for text in texts(cell):
            assert not ABSOLUTE_PATH.search(text), text


def test_the_committed_outputs_hold_no_error_and_no_warning(notebook: nbformat.NotebookNode) -> None:
    for cell in code_cells(notebook):
        assert all(output.output_type != "error" for output in cell.outputs), cell.source
        assert all(output.get("name") != "stderr" for output in cell.outputs), cell.source


@pytest.mark.parametrize(
    ("text", "is_a_place"),
    [
        ("/home/me/model", True),
        ("see /tmp/x", True),
        ("C:\\Users\\me", True),
        ("<Styler at 0x7f50806721d0>", True),
        ("docs/work/method.md", False),
        ("https://example.org/home", False),
        ("win/loss, 3/4", False),
        ("</opt>", False),
    ],
)
def test_a_place_on_a_machine_is_told_from_other_text(text: str, is_a_place: bool) -> None:
    assert bool(ABSOLUTE_PATH.search(text)) == is_a_place
