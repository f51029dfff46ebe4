"""AutoMix learns how to mix training images.

Importing this package imports nothing heavy; import what you need from its modules, for
example ``from automix.operators import mix`` or ``from automix.schedule import Schedule``.
"""

__version__ = "0.1.0"
