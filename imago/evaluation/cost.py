"""How large a model is, and how much work an answer is."""

from imago.errors import ImagoError
from imago.serving.package import ModelPackage


def count_operations(package: ModelPackage) -> tuple[int, int] | None:
    """Return a model's parameters, and the multiplications with addition that one picture takes.

    Convolutions, linear layers and attention are counted, as is usual; attention as the matrix products that it is,
    which torch's own fused kernels for the CPU hide from its counter. None where the timm of today cannot build the
    architecture: its graph answers all the same.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from imago.serving.export import load_module

    try:
        module = load_module(package)
    except ImagoError:
        return None
    size = package.spec.preprocessing.image_size
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        module(torch.zeros(1, 3, size, size))
    return sum(parameter.numel() for parameter in module.parameters()), counter.get_total_flops() // 2
