"""The choice of a device and of its precision."""

import pytest
import torch

from tasks.core.errors import InputError
from tasks.core.runtime.device import choose_device, describe_device, precision_for

CPU = torch.device("cpu")


def test_auto_finds_a_device_and_the_cpu_is_always_available() -> None:
    assert choose_device("cpu") == CPU
    torch.zeros(1, device=choose_device("auto"))
    assert describe_device(CPU).startswith("cpu (")


@pytest.mark.parametrize("number", [torch.cuda.device_count(), 99, 10**20])
def test_a_missing_gpu_is_refused_with_the_number_of_gpus(number: int) -> None:
    with pytest.raises(InputError) as caught:
        choose_device(f"cuda:{number}")
    assert str(caught.value).startswith("--device: expected ")
    assert f"cuda:{number}" in str(caught.value)


@pytest.mark.parametrize("wanted", ["meta", "xpu", "gpu", "cuda:first"])
def test_an_unknown_device_is_refused_with_the_known_ones(wanted: str) -> None:
    with pytest.raises(
        InputError, match=f"--device: expected cpu, cuda, cuda:N or mps, got {wanted}; try --device auto"
    ):
        choose_device(wanted)


def test_all_cores_of_a_cpu_are_one_device() -> None:
    assert choose_device("cpu:3") == CPU


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        ({"cpu_name": "AMD EPYC", "avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": True}, torch.bfloat16),
        ({"cpu_name": "Intel Xeon", "avx512_bf16": True, "amx_bf16": False}, torch.float32),
        ({"cpu_name": "Neoverse V1", "bf16": True}, torch.bfloat16),
        ({"cpu_name": "Intel Core", "avx2": True}, torch.float32),
    ],
    ids=str,
)
def test_auto_uses_bfloat16_only_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, features: dict[str, object], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert precision_for(CPU, "auto") == expected
    assert precision_for(CPU, "float32") == torch.float32
