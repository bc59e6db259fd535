"""The wheel installs trainers/ alone, as the package `mocoop`; everything else is in pyproject.toml."""

from setuptools import find_packages, setup

PACKAGES = [name.replace("trainers", "mocoop", 1) for name in find_packages(include=["trainers*"])]

setup(packages=PACKAGES, package_dir={"mocoop": "trainers"})
