"""Who executes the code: autograd, or a compiler or functorch, which need every operation as a plain expression."""

from __future__ import annotations

import torch


def is_transformed() -> bool:
    """Whether the present code is being compiled, or runs inside functorch (`vmap`, `grad`, `vjp`).

    Such code must not choose by the values of tensors, write into its inputs, or call autograd.
    """
    return torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
