"""Image and layer metrics on straight RGBA uint8 arrays (height, width, 4) of equal size (paper section 4.2,
architecture: metrics)."""

import numpy as np

from ..stacks.layers import premultiply

MAX_PSNR = 60.0  # dB; two equal images have no finite PSNR
SSIM_WINDOW, SSIM_SIGMA = 11, 1.5
SSIM_C1, SSIM_C2 = 0.01**2, 0.03**2


def over_white(pixels: np.ndarray) -> np.ndarray:
    """RGB float (height, width, 3) in 0..1 of an RGBA image shown on white."""
    image = premultiply(pixels)
    return image[..., :3] + 1.0 - image[..., 3:]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB of two float arrays in 0..1, at most MAX_PSNR."""
    error = float(np.mean(np.square(a - b, dtype=np.float64)))
    return min(MAX_PSNR, -10 * np.log10(error)) if error > 0 else MAX_PSNR


def merged_psnr(a: np.ndarray, b: np.ndarray) -> float:
    """PSNR of two flattened designs, shown on white."""
    return psnr(over_white(a), over_white(b))


def _blur(image: np.ndarray) -> np.ndarray:
    """Gaussian window over the first two axes, valid positions only."""
    offsets = np.arange(SSIM_WINDOW) - SSIM_WINDOW // 2
    kernel = np.exp(-0.5 * (offsets / SSIM_SIGMA) ** 2)
    kernel /= kernel.sum()
    for axis in (0, 1):
        image = np.lib.stride_tricks.sliding_window_view(image, SSIM_WINDOW, axis) @ kernel
    return image


def merged_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004, Gaussian window 11, sigma 1.5) of two designs on white, mean of channels."""
    x, y = (over_white(image).astype(np.float64) for image in (a, b))
    mean_x, mean_y = _blur(x), _blur(y)
    var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + SSIM_C1) / (mean_x**2 + mean_y**2 + SSIM_C1)
    structure = (2 * covariance + SSIM_C2) / (var_x + var_y + SSIM_C2)
    return float((luminance * structure).mean())


def layer_psnr(prediction: np.ndarray, truth: np.ndarray) -> float:
    """PSNR of premultiplied RGBA over the pixels where the true layer is not fully transparent."""
    shown = truth[..., 3] > 0
    return psnr(premultiply(prediction)[shown], premultiply(truth)[shown])


def alpha_soft_iou(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Sum of the smaller alphas over the sum of the greater ones; 0 where both are empty (architecture: metrics)."""
    a, b = (image[..., 3].astype(np.float64) for image in (prediction, truth))
    total = np.maximum(a, b).sum()
    return float(np.minimum(a, b).sum() / total) if total > 0 else 0.0


def rgb_l1(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Mean absolute difference of straight RGB, in 0..1, over the pixels where the true alpha is above 0
    (architecture: metrics)."""
    shown = (truth[..., 3] > 0).astype(np.float64)
    difference = np.abs(prediction[..., :3].astype(np.float64) - truth[..., :3]).mean(-1) / 255
    return float((shown * difference).sum() / (shown.sum() + 1e-8))
