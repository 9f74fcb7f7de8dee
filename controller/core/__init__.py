"""The pure core: the decision is a function of data. No I/O, clock, randomness or logging."""
