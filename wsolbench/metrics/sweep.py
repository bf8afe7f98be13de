"""Regions of a map at every cut of its values, found in one pass over the pixels; compiled.

A map comes as ranks: cut g keeps the pixels of rank above g, so that ranks 0..G stand for G cuts.
From the highest rank down, foreground only grows: regions are born, gain pixels and merge, and a
union-find follows them all at the cost of one visit a pixel. What a contour search at each cut
would tell is kept up to date instead of being found anew, in whole numbers throughout:

* the box and the first pixel in raster order of each 8-connected region;
* the area that OpenCV gives its outer contour, a polygon through pixel centres with holes filled.
  Each 2x2 square adds to it by its own pixels alone (three: a half, four: one), so what a new pixel
  adds is a table's entry. That sum is the area less the holes', and the Euler number, which adds up
  likewise, says whether there are any. Where there are, the area lies between bounds (that sum, and
  the box or what was added since it was known), and the border is traced only when the bounds
  cannot tell which region is the largest;
* the holes: the same pass from the lowest rank up, over the 4-connected regions of background.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from wsolbench.metrics.compiling import compiled

Ranks = NDArray[np.uint8] | NDArray[np.uint16]
Kept = NDArray[np.uint8]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
_Int = NDArray[np.int32]

# Neighbours clockwise from the east; bit k of a mask says that neighbour k is there.
_DX = np.array([1, 1, 0, -1, -1, -1, 0, 1])
_DY = np.array([0, 1, 1, 1, 0, -1, -1, -1])
_AXIAL = 0b01010101

# Columns of the table of regions, one row a region; rows 0 and 1 are no region and the outside.
_PARENT, _SIZE, _LEFT, _TOP, _RIGHT, _BOTTOM, _FIRST, _STAMP, _BORN = range(9)
_SQUARES, _EULER, _AREA, _LIMIT = range(9, 13)
_COLUMNS = 13
# The first six are shared by the table of runs.
_RUN_START, _RUN_END, _RUN_COLUMNS = 6, 7, 8
#: eight kept pixels
_ALL_KEPT = np.uint64(0x0101010101010101)
_NONE, _OUTSIDE = 0, 1
_UNBOUNDED = 1 << 30
_ONE = np.uintp(1)


# -------------------------------------------------------------------------------------- tables


def _joins(mask: int, diagonal: bool) -> list[int]:
    """One neighbour of each group that is connected without the centre, and reaches it.

    Joining these joins all: neighbours side by side are connected under either connectivity, and
    under the diagonal one so are two axial neighbours round a corner.
    """
    group = list(range(8))
    for k in range(8):
        for step in (1, 2) if diagonal and k % 2 == 0 else (1,):
            other = (k + step) % 8
            if mask >> k & 1 and mask >> other & 1:
                group = [group[k] if g == group[other] else g for g in group]
    reaching = [k for k in range(8) if mask >> k & 1 and (diagonal or k % 2 == 0)]
    return list({group[k]: k for k in reaching}.values())


def _join_table(diagonal: bool) -> NDArray[np.int8]:
    """(256, 5): how many joins a mask of neighbours asks for, then which."""
    table = np.zeros((256, 5), np.int8)
    for mask in range(256):
        joins = _joins(mask, diagonal)
        table[mask, : len(joins) + 1] = [len(joins), *joins]
    return table


def _squares(mask: int) -> int:
    """Twice the area that a pixel adds: a half for each 2x2 square that comes to three or four."""
    squares = [sum(mask >> (k + step) % 8 & 1 for step in (-1, 0, 1)) for k in (1, 3, 5, 7)]
    return sum(others >= 2 for others in squares)


def _euler(mask: int) -> int:
    """Change of regions less holes by a pixel: it joins groups, or fills a hole of its own size."""
    return 1 if mask & _AXIAL == _AXIAL else 1 - len(_joins(mask, diagonal=True))


_JOIN_8 = _join_table(diagonal=True)
_JOIN_4 = _join_table(diagonal=False)
_SQUARES_BY_MASK = np.array([_squares(mask) for mask in range(256)], np.int8)
_EULER_BY_MASK = np.array([_euler(mask) for mask in range(256)], np.int8)


# ------------------------------------------------------------------------------------- regions


@compiled
def _by_rank(ranks: Ranks, cuts: int) -> tuple[_Int, Ints]:
    """Pixels (y << 16 | x) by rank, in raster order within each, and where each rank starts."""
    height, width = ranks.shape
    # Neighbours tend to be of one rank, and what was just written is slow to be read again.
    counts = np.zeros((4, cuts + 1), np.int64)
    for y in range(height):
        for x in range(width):
            counts[x & 3, ranks[y, x]] += 1
    starts = np.zeros(cuts + 2, np.int64)
    starts[1:] = counts[0] + counts[1] + counts[2] + counts[3]
    for rank in range(cuts + 1):
        starts[rank + 1] += starts[rank]
    order = np.empty(height * width, np.int32)
    end = starts.copy()
    for y in range(height):
        for x in range(width):
            rank = ranks[y, x]
            order[end[rank]] = y << 16 | x
            end[rank] += 1
    return order, starts


@compiled
def _root(regions: _Int, region: int) -> int:
    """Region that ``region`` has become part of; halves the way for the next call."""
    here, above = np.uintp(region), np.uintp(regions[region, _PARENT])
    while above != here:
        above = np.uintp(regions[above, _PARENT])
        regions[here, _PARENT] = above
        here, above = above, np.uintp(regions[above, _PARENT])
    return int(np.int64(here))


@compiled
def _merge(regions: _Int, a: int, b: int) -> int:
    """Join two different roots and return the one that remains, the one of more pixels."""
    if regions[a, _SIZE] < regions[b, _SIZE]:
        a, b = b, a
    regions[b, _PARENT] = a
    regions[a, _SIZE] += regions[b, _SIZE]
    regions[a, _LEFT] = min(regions[a, _LEFT], regions[b, _LEFT])
    regions[a, _TOP] = min(regions[a, _TOP], regions[b, _TOP])
    regions[a, _RIGHT] = max(regions[a, _RIGHT], regions[b, _RIGHT])
    regions[a, _BOTTOM] = max(regions[a, _BOTTOM], regions[b, _BOTTOM])
    regions[a, _FIRST] = min(regions[a, _FIRST], regions[b, _FIRST])
    regions[a, _SQUARES] += regions[b, _SQUARES]
    regions[a, _EULER] += regions[b, _EULER]
    # One may lie in a hole of the other, so the areas do not add up.
    regions[a, _AREA] = max(regions[a, _AREA], regions[b, _AREA])
    regions[a, _LIMIT] = min(regions[a, _LIMIT] + regions[b, _LIMIT], _UNBOUNDED)
    return a


@compiled
def _start(regions: _Int, region: int, x: int, y: int, pixel: int, rank: int) -> None:
    """Begin a region at a pixel, which is yet to be added."""
    regions[region, :] = 0
    regions[region, _PARENT] = region
    regions[region, _LEFT] = regions[region, _RIGHT] = x
    regions[region, _TOP] = regions[region, _BOTTOM] = y
    regions[region, _FIRST] = pixel
    regions[region, _STAMP] = regions[region, _BORN] = rank


@compiled
def _neighbours(labels: _Int, p: np.uintp, stride: np.uintp, west: int) -> int:
    """Mask of the neighbours of pixel ``p`` that are there.

    Args:
        labels: as in :func:`_grow`.
        p: place of the pixel in it.
        stride: pixels in a row of it.
        west: mask of the pixel to the west, where that is the one just added; else 0.
    """
    if west:  # its neighbours are three columns of which two are known
        mask = 16 | west >> 1 & 96 | west << 1 & 12
    else:
        mask = (
            (labels[p + stride] != 0) * 4
            + (labels[p + stride - _ONE] != 0) * 8
            + (labels[p - _ONE] != 0) * 16
            + (labels[p - stride - _ONE] != 0) * 32
            + (labels[p - stride] != 0) * 64
        )
    return int(
        mask
        + (labels[p + _ONE] != 0) * 1
        + (labels[p + stride + _ONE] != 0) * 2
        + (labels[p - stride + _ONE] != 0) * 128
    )


@compiled
def _add(region: _Int, p: int, x: int, y: int, mask: int, east: bool) -> None:
    """Add a pixel to a region's row; ``east`` of one of its own that was just added."""
    region[_SIZE] += 1
    region[_RIGHT] = max(region[_RIGHT], x)
    if not east:
        region[_LEFT] = min(region[_LEFT], x)
        region[_TOP] = min(region[_TOP], y)
        region[_BOTTOM] = max(region[_BOTTOM], y)
        region[_FIRST] = min(region[_FIRST], p)
    region[_SQUARES] += _SQUARES_BY_MASK[mask]
    region[_LIMIT] += _SQUARES_BY_MASK[mask]
    region[_EULER] += _EULER_BY_MASK[mask]


@compiled
def _grow(
    pixels: _Int,
    rank: int,
    labels: _Int,
    stride: int,
    joins: NDArray[np.int8],
    regions: _Int,
    used: int,
    touched: _Int,
) -> tuple[int, int]:
    """Add the pixels of one rank.

    Places are unsigned here wherever speed depends on them: that spares the compiled code a check
    for negative ones at each access.

    Args:
        pixels: y << 16 | x of each.
        rank: their rank, which stamps the regions that change.
        labels: region of each pixel, with a border of one pixel all round; 0 for none. Only its
            root is up to date.
        stride: pixels in a row of ``labels``.
        joins: table of the connectivity.
        regions: table of regions.
        used: rows of it in use.
        touched: takes the regions that changed, those that became part of others included.

    Returns:
        Rows in use, and the number of regions touched.
    """
    count = root = mask = before = 0
    steps = _DY * stride + _DX
    for i in range(len(pixels)):
        y, x = pixels[i] >> 16, pixels[i] & 0xFFFF
        p = (y + 1) * stride + x + 1
        follows, before = p == before + 1, p
        mask = _neighbours(labels, np.uintp(p), np.uintp(stride), mask if follows else 0)
        ways = joins[np.uintp(mask), 0]
        east = follows and ways == 1  # of a pixel of the only region here
        if not east:
            root = 0
            for k in range(1, ways + 1):
                other = _root(regions, labels[p + steps[joins[mask, k]]])
                if regions[other, _STAMP] != rank:
                    regions[other, _STAMP] = rank
                    touched[count] = other
                    count += 1
                if root == 0:
                    root = other
                elif other != root:
                    root = _merge(regions, root, other)
                else:  # two ways to the same region: a new hole, of any area
                    regions[root, _LIMIT] = regions[_NONE, _LIMIT] = _UNBOUNDED
            if root == 0:
                root = used
                used += 1
                _start(regions, root, x, y, p, rank)
                touched[count] = root
                count += 1
        labels[np.uintp(p)] = root
        if root != _OUTSIDE:  # whose measures nobody asks for
            _add(regions[np.uintp(root)], p, x, y, mask, east)
    return used, count


@compiled
def _tables(height: int, width: int) -> tuple[_Int, _Int, _Int]:
    """Labels with their border, table of regions and room for the touched ones."""
    # No two neighbours both start a region, so there are never more than half as many as pixels.
    most = (height * width + 1) // 2 + 2
    labels = np.zeros((height + 2) * (width + 2), np.int32)
    regions = np.empty((most, _COLUMNS), np.int32)
    regions[_NONE, _LIMIT] = 0  # no hole yet
    return labels, regions, np.empty(most, np.int32)


@compiled
def _put_box(regions: _Int, region: int, box: Ints) -> None:
    """Write x, y, x + w, y + h."""
    box[0] = regions[region, _LEFT]
    box[1] = regions[region, _TOP]
    box[2] = regions[region, _RIGHT] + 1
    box[3] = regions[region, _BOTTOM] + 1


# --------------------------------------------------------------------------------------- areas


@compiled
def _traced_area(labels: _Int, stride: int, first: int) -> int:
    """Twice the area within the outer border of the region whose first raster pixel is ``first``.

    The border is followed clockwise, the outside always to the left, until it is about to leave
    ``first`` the way it left at the start: there is a hole, so there is a way.
    """
    steps = _DY * stride + _DX
    side = 0
    while labels[first + steps[side]] == 0:
        side += 1
    p, left, y, doubled = first, side, 0, 0
    while True:
        p += steps[side]
        doubled -= (2 * y + _DY[side]) * _DX[side]
        y += _DY[side]
        # The last neighbour of the old pixel that was seen empty touches the new one too; the
        # search goes on behind it.
        side = (side + 7 - side % 2) % 8
        while labels[p + steps[side]] == 0:
            side = (side + 1) % 8
        if p == first and side == left:
            return int(doubled)


@compiled
def _bound_area(regions: _Int, region: int) -> None:
    """Set the bounds of twice the area of a region that has changed; equal where it is known."""
    if regions[region, _EULER] == 1:
        regions[region, _AREA] = regions[region, _LIMIT] = regions[region, _SQUARES]
        return
    width = regions[region, _RIGHT] - regions[region, _LEFT]
    height = regions[region, _BOTTOM] - regions[region, _TOP]
    # A region never shrinks, so what was its area, or a part's, is still a lower bound.
    regions[region, _AREA] = max(regions[region, _AREA], regions[region, _SQUARES])
    regions[region, _LIMIT] = min(regions[region, _LIMIT], 2 * width * height)


@compiled
def _trace(regions: _Int, region: int, labels: _Int, stride: int) -> int:
    """Make the bounds of a region's area meet, and return it."""
    if regions[region, _AREA] != regions[region, _LIMIT]:
        area = _traced_area(labels, stride, regions[region, _FIRST])
        regions[region, _AREA] = regions[region, _LIMIT] = area
    return int(regions[region, _AREA])


@compiled
def _contenders(
    regions: _Int, rank: int, touched: _Int, count: int, leaders: _Int, ahead: int
) -> int:
    """Put the regions that may be the largest now into ``leaders`` and return their number.

    A region that did not change and was smaller than the largest still is, for that one did not
    shrink: only those that led together until now and those that changed can lead.
    """
    kept = 0
    for i in range(ahead):
        if regions[leaders[i], _STAMP] != rank:
            leaders[kept] = leaders[i]
            kept += 1
    for i in range(count):
        region = touched[i]
        if regions[region, _PARENT] == region:
            _bound_area(regions, region)
            leaders[kept] = region
            kept += 1
    return kept


@compiled
def _keep(regions: _Int, leaders: _Int, ahead: int, least: int) -> int:
    """Keep the leaders whose area may reach ``least``, and return their number."""
    kept = 0
    for i in range(ahead):
        if regions[leaders[i], _LIMIT] >= least:
            leaders[kept] = leaders[i]
            kept += 1
    return kept


@compiled
def _lead(
    regions: _Int,
    rank: int,
    labels: _Int,
    stride: int,
    touched: _Int,
    count: int,
    leaders: _Int,
    ahead: int,
) -> int:
    """Bring ``leaders``, all regions of the largest area, up to date; return their number.

    A single one need not know its area: the others cannot reach its lower bound. Several have the
    same one, exactly. All of them matter to the next rank: one may then gain pixels but no area and
    lose its place in raster order.
    """
    ahead = _contenders(regions, rank, touched, count, leaders, ahead)
    top = 0
    for i in range(1, ahead):
        if regions[leaders[i], _AREA] > regions[leaders[top], _AREA]:
            top = i
    ahead_by = regions[leaders[top], _AREA]
    largest = leaders[top]
    ahead = _keep(regions, leaders, ahead, ahead_by)
    if ahead == 1:
        return 1
    best = _trace(regions, largest, labels, stride)  # it rules out most
    for i in range(ahead):
        if regions[leaders[i], _LIMIT] >= best:
            best = max(best, _trace(regions, leaders[i], labels, stride))
    return _keep(regions, leaders, ahead, best)


@compiled
def _last(regions: _Int, leaders: _Int, ahead: int) -> int:
    """Leader whose first raster pixel comes last: the first in OpenCV's order.

    That is so although OpenCV lists contours as a tree. What lies in a hole is smaller than what
    lies round it, so the leaders are all at the root of the tree, where the last one found is
    first. The contour of a hole as large as its region's outer one is the same polygon.
    """
    last = leaders[0]
    for i in range(1, ahead):
        if regions[leaders[i], _FIRST] > regions[last, _FIRST]:
            last = leaders[i]
    return int(last)


# ------------------------------------------------------------------------------------ overlaps


@compiled
def _best_overlap(x0: int, y0: int, x1: int, y1: int, truth: Floats) -> float:
    """Best IoU of a box with the true ones, operation by operation that of ``box_iou``."""
    best = 0.0
    for i in range(len(truth)):
        width = min(float(x1), truth[i, 2]) - max(float(x0), truth[i, 0]) + 1
        height = min(float(y1), truth[i, 3]) - max(float(y0), truth[i, 1]) + 1
        if width > 0 and height > 0:
            overlap = width * height
            area = float((x1 - x0 + 1) * (y1 - y0 + 1))
            true = (truth[i, 2] - truth[i, 0] + 1) * (truth[i, 3] - truth[i, 1] + 1)
            best = max(best, overlap / (area + true - overlap))
    return best


@compiled
def _raise(peaks: Floats, start: int, stop: int, value: float) -> None:
    """Raise the cuts in [start, stop) to at least ``value``.

    Row k of ``peaks`` holds what is raised over 2^k cuts at once; any range is two of those.
    """
    k = 0
    while 2 << k <= stop - start:
        k += 1
    end = stop - (1 << k)
    peaks[k, start] = max(peaks[k, start], value)
    peaks[k, end] = max(peaks[k, end], value)


@compiled
def _peaks(cuts: int) -> Floats:
    """Room for :func:`_raise` over ``cuts`` cuts."""
    rows = 1
    while 1 << rows <= cuts:
        rows += 1
    return np.zeros((rows, cuts))


@compiled
def _raised(peaks: Floats) -> Floats:
    """Value (G,) of each cut after all calls of :func:`_raise`."""
    for k in range(len(peaks) - 1, 0, -1):
        half = 1 << (k - 1)
        for cut in range(peaks.shape[1] - 2 * half + 1):
            peaks[k - 1, cut] = max(peaks[k - 1, cut], peaks[k, cut])
            peaks[k - 1, cut + half] = max(peaks[k - 1, cut + half], peaks[k, cut])
    values: Floats = peaks[0]
    return values


@compiled
def _score(
    regions: _Int,
    rank: int,
    touched: _Int,
    count: int,
    ring: int,
    truth: Floats,
    far: Ints,
    overlaps: Floats,
    peaks: Floats,
) -> None:
    """Close the time in which each changed region had its old box, and overlap the new boxes.

    ``ring`` is 0 for regions and 1 for holes, whose contours run through the pixels round them.
    """
    for i in range(count):
        region = touched[i]
        if region == _OUTSIDE:
            continue
        born = regions[region, _BORN]
        if born != rank and overlaps[region] > 0:
            _raise(peaks, min(born, rank), max(born, rank), overlaps[region])
        if regions[region, _PARENT] == region:
            regions[region, _BORN] = rank
            overlaps[region] = _best_overlap(
                regions[region, _LEFT] - ring,
                regions[region, _TOP] - ring,
                min(regions[region, _RIGHT] + 1 + ring, far[0]),
                min(regions[region, _BOTTOM] + 1 + ring, far[1]),
                truth,
            )


@compiled
def _close(regions: _Int, used: int, end: int, overlaps: Floats, peaks: Floats) -> None:
    """Close the time of the boxes that are left when the last rank, ``end``, is reached."""
    for region in range(_OUTSIDE + 1, used):
        if regions[region, _PARENT] == region and overlaps[region] > 0:
            born = regions[region, _BORN]
            _raise(peaks, min(born, end), max(born, end), overlaps[region])


@compiled
def _sweep_holes(
    order: _Int, starts: Ints, height: int, width: int, truth: Floats, far: Ints, peaks: Floats
) -> None:
    """Raise ``peaks`` by the boxes of all holes: 4-connected background off the border."""
    labels, regions, touched = _tables(height, width)
    overlaps = np.empty(len(regions))
    stride, cuts = width + 2, len(starts) - 2
    # What touches the border belongs to the outside, which is no hole and never becomes part of
    # another region.
    for x in range(stride):
        labels[x] = labels[(height + 1) * stride + x] = _OUTSIDE
    for y in range(height + 2):
        labels[y * stride] = labels[y * stride + width + 1] = _OUTSIDE
    _start(regions, _OUTSIDE, 0, 0, 0, -1)
    regions[_OUTSIDE, _SIZE] = height * width
    used = _OUTSIDE + 1
    for rank in range(cuts):
        pixels = order[starts[rank] : starts[rank + 1]]
        used, count = _grow(pixels, rank, labels, stride, _JOIN_4, regions, used, touched)
        _score(regions, rank, touched, count, 1, truth, far, overlaps, peaks)
    _close(regions, used, cuts, overlaps, peaks)


# ------------------------------------------------------------------------------------- public


@compiled
def contours(ranks: Ranks, cuts: int, truth: Floats, far: Ints) -> tuple[Ints, Floats]:
    """Contours of a map at each of its G cuts, as OpenCV's findContours would tell them.

    Args:
        ranks: (h, w), none above ``cuts``; cut g keeps the pixels of rank above g.
        cuts: G, at least 1.
        truth: true boxes (n, 4); none where overlaps are not asked for.
        far: (2,) where the far corners of boxes are clipped to before they overlap.

    Returns:
        Box (G, 4), x, y, x + w, y + h, of the contour of largest contourArea (of equals the first
        in OpenCV's order), not clipped; and the best IoU (G,) of any contour's box, those of holes
        included, with a true one. Both are zero at cuts that keep nothing.
    """
    height, width = ranks.shape
    order, starts = _by_rank(ranks, cuts)
    labels, regions, touched = _tables(height, width)
    leaders, overlaps = np.empty_like(touched), np.empty(len(regions))
    stride, used, ahead = width + 2, _OUTSIDE + 1, 0
    boxes, peaks = np.zeros((cuts, 4), np.int64), _peaks(cuts)
    for rank in range(cuts, 0, -1):
        pixels = order[starts[rank] : starts[rank + 1]]
        used, count = _grow(pixels, rank, labels, stride, _JOIN_8, regions, used, touched)
        if count > 0:
            ahead = _lead(regions, rank, labels, stride, touched, count, leaders, ahead)
            if len(truth) > 0:
                _score(regions, rank, touched, count, 0, truth, far, overlaps, peaks)
        if ahead > 0:
            _put_box(regions, _last(regions, leaders, ahead), boxes[rank - 1])
    if len(truth) > 0:
        _close(regions, used, 0, overlaps, peaks)
        if regions[_NONE, _LIMIT] > 0:  # there ever was a hole
            _sweep_holes(order, starts, height, width, truth, far, peaks)
    return boxes, _raised(peaks)


@compiled
def _edges(pixels: Kept, words: NDArray[np.uint64], edges: _Int) -> int:
    """Write where runs of kept pixels start and end (one past the last); return how many numbers.

    Eight pixels at once where they are as the one before, and without branches where they are not:
    those of noise are not to be foreseen.
    """
    count, before, same = 0, 0, np.uint64(0)
    for word in range(len(words)):
        if words[word] == same:
            continue
        for x in range(8 * word, 8 * word + 8):
            edges[count] = x
            count += pixels[x] != before
            before = pixels[x]
        same = _ALL_KEPT if before else np.uint64(0)
    edges[count] = len(pixels)
    return count + before


@compiled
def _runs(kept: Kept, runs: _Int) -> int:
    """Join the runs of kept pixels in each row with those they touch in the row above.

    A run is a row of the table of regions, with its own start and end in two columns that the box
    does not use. The root of several is the first in raster order. Returns their number.
    """
    height, width = kept.shape
    words = kept.view(np.uint64)
    edges = np.empty(width + 1, np.int32)
    used = above = above_end = 0
    for y in range(height):
        row = used
        for k in range(0, _edges(kept[y], words[y], edges), 2):
            start, end, root = edges[k], edges[k + 1], used
            runs[used, _PARENT], runs[used, _SIZE] = used, end - start
            runs[used, _LEFT], runs[used, _RIGHT] = start, end - 1
            runs[used, _TOP] = runs[used, _BOTTOM] = y
            runs[used, _RUN_START], runs[used, _RUN_END] = start, end
            while above < above_end and runs[above, _RUN_END] < start:
                above += 1
            touching = above
            while touching < above_end and runs[touching, _RUN_START] <= end:
                other = _root(runs, touching)
                if other != root:
                    root = _join_runs(runs, min(root, other), max(root, other))
                touching += 1
            above = max(above, touching - 1)  # it may touch the next run as well
            used += 1
        above, above_end = row, used
    return used


@compiled
def _join_runs(runs: _Int, root: int, other: int) -> int:
    """Make one root part of another one that comes before it, and return that."""
    runs[other, _PARENT] = root
    runs[root, _SIZE] += runs[other, _SIZE]
    runs[root, _LEFT] = min(runs[root, _LEFT], runs[other, _LEFT])
    runs[root, _RIGHT] = max(runs[root, _RIGHT], runs[other, _RIGHT])
    runs[root, _BOTTOM] = max(runs[root, _BOTTOM], runs[other, _BOTTOM])
    return root


@compiled
def largest_components(kept: Kept) -> Ints:
    """Box (G, 4) of the 8-connected component of most pixels at each of G cuts.

    Of equals it is the first in raster order; zero at cuts that keep nothing. The protocols cut at
    a few levels only, and then one labelling of whole runs a cut is faster than a visit to each
    pixel in the order of ranks.

    Args:
        kept: (G, h, w) 1 for the pixels of a cut, else 0; w a multiple of eight.
    """
    cuts, height, width = kept.shape
    runs = np.empty((height * ((width + 1) // 2), _RUN_COLUMNS), np.int32)
    boxes = np.zeros((cuts, 4), np.int64)
    for cut in range(cuts):
        used, best = _runs(kept[cut], runs), 0
        for run in range(used):
            if runs[run, _SIZE] > runs[best, _SIZE]:
                best = run
        if used > 0:
            _put_box(runs, best, boxes[cut])
    return boxes
