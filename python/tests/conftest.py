"""What needs a framework or a GPU is skipped, with the reason, where there is none."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))

try:
    import torch
except ImportError:
    torch = None
    collect_ignore_glob = ["pytorch/*"]


def why_no_gpu():
    if torch is None:
        return "PyTorch is not installed, whose tensors the GPU tests use"
    if not torch.cuda.is_available():
        return "PyTorch sees no NVIDIA GPU here"
    return ""


def pytest_collection_modifyitems(items):
    reason = why_no_gpu()
    if not reason:
        return
    for item in items:
        if "gpu" in item.keywords:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_report_header():
    return "" if torch is not None else "PyTorch is not installed: tests/pytorch is not collected"


@pytest.fixture(autouse=True)
def _seeded():
    if torch is not None:
        torch.manual_seed(0)
        torch.set_num_threads(1)
