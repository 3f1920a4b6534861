"""Images as tensors, and back; torch is imported when it is needed, since exported networks run without it."""

import numpy as np

from ttlkit.data.image_files import to_float


def to_tensor(image: np.ndarray):
    """Image (H, W, 3), float, uint8 or uint16, to a float32 tensor (1, 3, H, W) in [0, 1]."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(to_float(image).transpose(2, 0, 1), np.float32))[None]


def to_image(tensor) -> np.ndarray:
    """Tensor (1, 3, H, W) or (3, H, W) to float32 (H, W, 3), clipped to [0, 1]."""
    tensor = tensor[0] if tensor.ndim == 4 else tensor
    return np.ascontiguousarray(tensor.detach().float().clamp(0, 1).cpu().numpy().transpose(1, 2, 0))
