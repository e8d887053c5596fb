"""Features of one level as pairs of halves, computed by all lanes of a warp together."""

import math
from functools import cache

import numpy as np

from numbanet.device import device, local_array, uint32_view, unrolled
from numbanet.encodings.grid.level import first_feature, locate
from numbanet.storage.halves import TO_PAIR
from numbanet.storage.memory_access import load_words_in
from numbanet.storage.warp_halves import floats_and_differences, units

MOST_BLENDED_CORNERS = 16  # whose features are in registers at the same time
MOST_WORDS = 4  # of an access


@cache
def load_words(grid, precision, first_param):
    """Device function (level, cell, corner, params, words): the entry of a corner, in pairs.

    Params are of the precision, or float32 that are rounded to it. As many pairs are read at a time
    as `first_param`, where the grid begins, leaves aligned.
    """
    n_pairs, first_feature_ = grid.n_pairs, first_feature(grid)
    n_words = math.gcd(n_pairs, first_param // 2, MOST_WORDS)
    load = load_words_in(precision, n_words)

    @device
    def load_words(level, cell, corner, params, words):  # words [n_pairs]
        j = first_feature_(level, cell, corner)
        for k in range(n_pairs // n_words):
            loaded = load(params, j + np.uint64(2 * n_words * k))
            for q in range(n_words):
                words[k * n_words + q] = loaded[q]

    return load_words


@cache
def forward_pairs(grid, precision, load):
    """Device function (level, x, params, words): write the level's features of x, two in a word.

    Interpolates along one dimension after the other. The first one's differences are what the
    tensor cores subtract, so that all is float32 without a conversion of every entry. `load` is as
    load_words, for parameters wherever they are.
    """
    n_dims, n_corners, n_pairs = grid.n_dims, grid.n_corners, grid.n_pairs
    n_features, n_factors = grid.n_features_per_level, grid.n_factors
    locate_ = locate(grid)
    to_pair, units_of_lane = TO_PAIR[precision], units(precision)
    subtract = floats_and_differences(precision)
    # In the order of the registers that the tensor cores want.
    corner_order = (*range(0, n_corners, 2), *range(1, n_corners, 2))
    n_words, n_edges = n_corners * n_pairs, n_corners // 2 * n_pairs
    n_values, n_couples, is_odd = n_edges * 2 + 2, (n_edges + 1) // 2, n_edges % 2 == 1
    steps = tuple(
        (d, corner * n_features + f, 2 * corner * n_features + f)
        for d in range(1, n_dims)
        for corner in range(n_corners >> (d + 1))
        for f in range(n_features)
    )
    n_steps = len(steps)
    steps = steps or ((0, 0, 0),)

    @device
    def load_corner(i, level, cell, params, words):
        corner = corner_order[i]
        load(level, cell, corner, params, words[corner * n_pairs : (corner + 1) * n_pairs])

    @device
    def edge(e, words):  # along the first dimension: its corners' words of one pair
        low = 2 * (e // n_pairs) * n_pairs + e % n_pairs
        return words[low], words[low + n_pairs]

    @device
    def blend_edges(couple, t, ones, words, values):
        e = 2 * couple
        low, high = edge(e, words)
        other_low, other_high = edge(e if is_odd and e + 1 == n_edges else e + 1, words)
        floats, differences = subtract(ones, low, high, other_low, other_high)
        for k in range(4):
            values[2 * e + k] = floats[k] + t * differences[k]

    @device
    def blend(step, factors, values):
        d, to, low = steps[step]
        t, high = factors[2 * d + 1], low + n_features
        values[to] = values[low] + t * (values[high] - values[low])

    @device
    def level_forward_pairs(level, x, params, words):  # words [n_pairs]
        cell, factors = uint32_view(local_array(n_dims)), local_array(n_factors)
        locate_(level, x, cell, factors)
        corners, values = uint32_view(local_array(n_words)), local_array(n_values)
        unrolled(n_corners, load_corner, level, cell, params, corners)
        unrolled(n_couples, blend_edges, factors[1], units_of_lane(x[0]), corners, values)
        unrolled(n_steps, blend, factors, values)
        for k in range(n_pairs):
            words[k] = to_pair(values[2 * k], values[2 * k + 1]) if n_corners > 1 else corners[k]

    return level_forward_pairs
