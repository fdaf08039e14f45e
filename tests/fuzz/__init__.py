"""Fuzzing what reads hostile mail: `make fuzz`. Targets are plain functions of bytes, driven by atheris and by hypothesis."""
