"""Packages of the wheel; everything else is in pyproject.toml.

configs/ lies at the top of a checkout, where people look for it, and in a wheel as
``automix/configs``: pyproject.toml can't map a folder and find packages at once.
"""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["automix*", "envs*", "agents*"]), "automix.configs"],
    package_dir={"automix.configs": "configs"},
)
