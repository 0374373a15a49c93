"""The real time, and as much later as a test says."""

import time


class LaterClock:
    def __init__(self):
        self.later_s = 0.0

    def wall_us(self):
        return int((time.time() + self.later_s) * 1e6)

    def monotonic_s(self):
        return time.monotonic() + self.later_s
