"""A range coder: numbers as bytes, each at the price of its probability, and back; and laws as whole numbers.

Source:  Martin 1979, "Range encoding"; the estimate of an adaptive law: Krichevsky & Trofimov 1981.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

PRECISION = 32  # bits of the frequencies of a law, all together
_WIDE = 64  # bits of the interval
_NARROW = 1 << (_WIDE - 8)  # narrower than this it sheds a byte: 24 bits are left for rounding
_ALL = (1 << _WIDE) - 1


class Encoder:
    """Numbers put one after the other, each with its law; `finish` gives the bytes."""

    def __init__(self) -> None:
        self._low, self._range, self._out = 0, 1 << _WIDE, bytearray()

    def put(self, number: int, cumulative: np.ndarray) -> int:
        """The number, now in the bytes.

        Shapes:  `cumulative` [V + 1] int64: the sum of the frequencies before each number, and of all.
        Raises:  ValueError for a number that the law never gives.
        """
        if not 0 <= number < len(cumulative) - 1 or cumulative[number] == cumulative[number + 1]:
            raise ValueError(f"the law over {len(cumulative) - 1} numbers never gives {number}: it cannot be coded")
        begin, end, total = (int(cumulative[at]) for at in (number, number + 1, -1))
        step = self._range // total
        self._low, self._range = self._low + step * begin, step * (end - begin)
        while self._range < _NARROW:
            self._shed()
        return number

    def _shed(self) -> None:
        self._carry()
        self._out.append(self._low >> (_WIDE - 8))
        self._low, self._range = self._low << 8 & _ALL, self._range << 8

    def _carry(self) -> None:
        """What grew past the interval's own bits is added to the bytes before."""
        if self._low > _ALL:
            self._low &= _ALL
            at = len(self._out) - 1
            while self._out[at] == 255:
                self._out[at] = 0
                at -= 1
            self._out[at] += 1

    def finish(self) -> bytes:
        """All bytes: behind them a decoder reads zeros, so few end the last number."""
        for count in range(_WIDE // 8 + 1):
            rest = _ALL >> 8 * count
            inside = (self._low + rest) & ~rest
            if inside < self._low + self._range:
                break
        self._low = inside
        self._carry()
        return bytes(self._out) + self._low.to_bytes(_WIDE // 8, "big")[:count]


class Decoder:
    """The numbers that an encoder put, taken with the same laws."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at, self._range = data, _WIDE // 8, 1 << _WIDE
        self._above = int.from_bytes(data[: self._at].ljust(self._at, b"\0"), "big")  # over the interval's low end

    def take(self, cumulative: np.ndarray) -> int:
        """The next number.

        Shapes:  `cumulative` as it was put with.
        """
        step = self._range // int(cumulative[-1])
        number = int(np.searchsorted(cumulative, min(self._above // step, int(cumulative[-1]) - 1), side="right")) - 1
        begin, end = int(cumulative[number]), int(cumulative[number + 1])
        self._above, self._range = self._above - step * begin, step * (end - begin)
        while self._range < _NARROW:
            byte = self._data[self._at] if self._at < len(self._data) else 0
            self._above, self._range, self._at = self._above << 8 | byte, self._range << 8, self._at + 1
        return number


def cumulative(logits: np.ndarray) -> np.ndarray:
    """The softmax of scores as sums of whole frequencies; none is 0, and all together are at most 2 ** PRECISION.

    Shapes:  [V] -> [V + 1] int64.
    Limits:  a number costs no more than a millionth of a bit more than by the softmax for V up to 1,000, unless its
             probability is below 2 ** -PRECISION; the same to the bit only for scores that are.
    """
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return _sums((weights * ((2**PRECISION - len(weights)) / weights.sum())).astype(np.int64) + 1)


def encode(numbers: Iterable[int], laws: Iterable[np.ndarray]) -> bytes:
    """The bytes of numbers, each with its own law.

    Shapes:  a law [V + 1] int64, as `cumulative` makes it.
    """
    coder = Encoder()
    for number, law in zip(numbers, laws, strict=True):
        coder.put(int(number), law)
    return coder.finish()


def decode(data: bytes, laws: Iterable[np.ndarray]) -> list[int]:
    """The numbers of `encode`."""
    coder = Decoder(data)
    return [coder.take(law) for law in laws]


def encode_adaptively(numbers: np.ndarray, size: int) -> bytes:
    """The bytes of numbers below `size`, each told by how often it came before: nothing else is sent.

    Shapes:  [n].
    """
    coder, law = Encoder(), np.arange(size + 1, dtype=np.int64)
    for number in numbers.tolist():
        coder.put(number, law)
        law[number + 1 :] += 2  # half a time each at first, by Krichevsky and Trofimov
    return coder.finish()


def decode_adaptively(data: bytes, count: int, size: int) -> np.ndarray:
    """The `count` numbers of `encode_adaptively`.

    Shapes:  -> [count].
    """
    coder, law, out = Decoder(data), np.arange(size + 1, dtype=np.int64), np.empty(count, np.int64)
    for at in range(count):
        out[at] = number = coder.take(law)
        law[number + 1 :] += 2
    return out


def _sums(frequencies: np.ndarray) -> np.ndarray:
    return np.concatenate(([0], np.cumsum(frequencies)))
