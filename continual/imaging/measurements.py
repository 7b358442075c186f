"""Pixel statistics: the numbers in which a broken scanner shows; knows nothing of files or of what is normal."""

import numpy as np
from jaxtyping import Float, UInt8

from continual.imaging.decoded import Pixels

_GREY_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # luma, ITU-R BT.601


def pixel_statistics(pixels: Pixels) -> dict[str, float]:
    """Finite numbers describing an 8-bit RGB image; grey is BT.601 luma, in grey levels 0 to 255.

    `mean`, `std`, `p01`, `p50`, `p99` of grey; `contrast` (p99-p01)/(p99+p01) in [0, 1] (Michelson, on percentiles);
    `sharpness`, the variance of the Laplacian (Pech-Pacheco et al. 2000), squared grey levels; `noise`, the standard
    deviation after Immerkaer (1996), grey levels; `entropy` of the grey histogram, bits in [0, 8];
    `saturated_low_share` and `saturated_high_share`, shares of grey at 0 and 255; `mean_red`, `mean_green`,
    `mean_blue`.
    """
    grey = to_grey(pixels)
    share = np.bincount(grey.ravel(), minlength=256) / grey.size
    red, green, blue = pixels.reshape(-1, 3).mean(axis=0, dtype=np.float64)
    sharpness, noise = laplacian_measures(grey)
    return level_statistics(share) | {
        "sharpness": sharpness,
        "noise": noise,
        "saturated_low_share": float(share[0]),
        "saturated_high_share": float(share[255]),
        "mean_red": float(red),
        "mean_green": float(green),
        "mean_blue": float(blue),
    }


def level_statistics(share: Float[np.ndarray, "256"]) -> dict[str, float]:
    """What the shares of the 256 grey levels say: `mean`, `std`, `p01`, `p50`, `p99`, `contrast` and `entropy`."""
    levels = np.arange(256)
    mean = float(share @ levels)
    cumulative = np.cumsum(share)
    p01, p50, p99 = (float(np.searchsorted(cumulative, q - 1e-12)) for q in (0.01, 0.50, 0.99))
    present = share[share > 0]
    return {
        "mean": mean,
        "std": float(np.sqrt(share @ (levels - mean) ** 2)),
        "p01": p01,
        "p50": p50,
        "p99": p99,
        "contrast": (p99 - p01) / (p99 + p01) if p99 + p01 > 0 else 0.0,
        "entropy": abs(float(present @ np.log2(present))),
    }


def to_grey(pixels: Pixels) -> UInt8[np.ndarray, "height width"]:
    """BT.601 luma rounded to whole grey levels; equal channels come through unchanged."""
    grey: UInt8[np.ndarray, "height width"] = np.rint(pixels.astype(np.float32) @ _GREY_WEIGHTS).astype(np.uint8)
    return grey


def laplacian_measures(grey: UInt8[np.ndarray, "height width"]) -> tuple[float, float]:
    """Variance of the 4-neighbour Laplacian, and Immerkaer's noise estimate; both 0 below 3 pixels a side."""
    if min(grey.shape) < 3:
        return 0.0, 0.0
    g: Float[np.ndarray, "height width"] = grey.astype(np.float32)
    second_rows = g[:-2] - 2 * g[1:-1] + g[2:]
    laplacian = second_rows[:, 1:-1] + (g[1:-1, :-2] - 2 * g[1:-1, 1:-1] + g[1:-1, 2:])
    # Immerkaer's mask is the second difference along rows of the second difference along columns.
    masked = second_rows[:, :-2] - 2 * second_rows[:, 1:-1] + second_rows[:, 2:]
    noise = np.sqrt(np.pi / 2) / 6 * np.abs(masked).mean(dtype=np.float64)
    return float(laplacian.var(dtype=np.float64)), float(noise)
