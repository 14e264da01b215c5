"""Loss on one direction of a link: frame by frame at random, or in bursts, as when something stands or sends in between."""

import random


class LinkLoss:
    """Loses the share `probability` of all frames; on the mean `burst_frames` one after the other (Gilbert's two states).

    Where by chance alone more are lost in a row, as of 9 in 10, it is as many as by chance.
    """

    def __init__(self, chance: random.Random, probability: float, burst_frames: float) -> None:
        if burst_frames < 1.0:
            raise ValueError(f"a burst is of 1 frame at least, not {burst_frames}")
        self._chance = chance
        self._probability = probability
        self._burst_frames = burst_frames
        # Bursts shorter than those by chance would let frames come through only alone, and what answers one never.
        self._by_chance = burst_frames * (1.0 - probability) <= 1.0
        self._losing = False

    def lost(self) -> bool:
        """Of the next frame."""
        drawn = self._chance.random()
        if self._by_chance:
            return drawn < self._probability
        ends = 1.0 / self._burst_frames
        begins = self._probability * ends / (1.0 - self._probability)
        self._losing = drawn >= ends if self._losing else drawn < begins
        return self._losing
