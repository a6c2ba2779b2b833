"""Edges in a mosaic of a photograph: an ordinary NumPy program.

It knows nothing about where NumPy allocates, or how much memory there is.

    python demo_program.py PHOTO.npy ROWS COLUMNS
"""

import json
import sys

import numpy as np

if __name__ == "__main__":
    photo = np.load(sys.argv[1])
    rows, columns = int(sys.argv[2]), int(sys.argv[3])

    mosaic = np.tile(photo.astype(np.float32), (rows, columns, 1))
    light = 0.299 * mosaic[..., 0] + 0.587 * mosaic[..., 1] + 0.114 * mosaic[..., 2]
    right = light[:-1, 1:] - light[:-1, :-1]
    down = light[1:, :-1] - light[:-1, :-1]
    edges = np.sqrt(right * right + down * down)

    result = {
        "pixels": light.size,
        "light": np.bincount(light.ravel().astype(np.uint8), minlength=256).tolist(),
        "edges": np.bincount(edges.ravel().astype(np.uint16), minlength=512).tolist(),
    }
    print(json.dumps(result))
