"""Sequence numbers of items as a group's input carries them: mostly without gaps, so as spans."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


def packed(numbers: Iterable[int]) -> list[tuple[int, int]]:
    """Give the spans, first and last number of each, that rising numbers make.

    Example:
        >>> packed([1, 2, 3, 7])
        [(1, 3), (7, 7)]
    """
    spans: list[tuple[int, int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], number)
        else:
            spans.append((number, number))
    return spans


def unpacked(spans: Iterable[tuple[int, int]]) -> list[int]:
    """Give the numbers of spans.

    Example:
        >>> unpacked([(1, 3), (7, 7)])
        [1, 2, 3, 7]
    """
    return [number for first, last in spans for number in range(first, last + 1)]
