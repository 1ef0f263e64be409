"""Each of these tests starts programs that import much: `make matrix` runs them, or `pytest -m matrix`."""

import pytest


def pytest_configure(config: pytest.Config) -> None:
    # Where the matrix copies these tests to, there is no pyproject.toml.
    config.addinivalue_line("markers", "matrix: run by `make matrix`")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "adoption" in item.path.parts:
            item.add_marker("matrix")
