"""The contracts between the floors, as `lint-imports` reads them from pyproject.toml."""

import subprocess
import sys
from pathlib import Path


def test_the_floors_rest_on_those_below_only():
    contracts = Path(sys.executable).with_name("lint-imports")
    ended = subprocess.run(
        [contracts, "--no-cache"], cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
    )
    assert "Contracts: 3 kept, 0 broken." in ended.stdout
    assert ended.returncode == 0
