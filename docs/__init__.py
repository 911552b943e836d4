"""The documentation; a package only so that ``python -m docs.generate`` works."""
