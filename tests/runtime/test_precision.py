import pytest
import torch

from runtime.precision import exact_float32, use_tensor_float32


def settings():
    cudnn = torch.backends.cudnn
    return torch.get_float32_matmul_precision(), cudnn.allow_tf32, cudnn.benchmark


@pytest.fixture(autouse=True)
def restored():
    before = settings()
    yield
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = before[1:]


def test_evaluation_inside_training_is_exact_and_training_goes_on_in_tf32():
    use_tensor_float32()
    assert settings() == ("high", True, True)

    @exact_float32()
    def evaluate():
        assert settings() == ("highest", False, False)
        raise KeyError

    with pytest.raises(KeyError):
        evaluate()
    assert settings() == ("high", True, True)
