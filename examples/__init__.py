"""Short programs that use AutoMix in other people's training loops, each on the digits.

Run one from the root of the repository, ``python -m examples.plain_pytorch`` say.
"""
