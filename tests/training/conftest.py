import pytest
from accelerate.state import AcceleratorState

from tests.training.tiny_runs import save_students


@pytest.fixture
def fresh_accelerate_state():
    """Accelerate keeps the state of the first run of a process; a test that trains asks for its own."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="session")
def students(tmp_path_factory):
    """Random backbones of both students, by the arguments that name them. Read only."""
    return save_students(tmp_path_factory.mktemp("students"))
