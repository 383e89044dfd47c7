import pytest
import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the switch that rewrites golden numbers."""
    parser.addoption(
        "--regenerate",
        action="store_true",
        help="rewrite tests/golden/ from the code as it is, instead of comparing with it",
    )


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small tensors are fastest on one thread, and the folds of the product train on one too."""
    torch.set_num_threads(1)
