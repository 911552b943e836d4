"""The guest's side: the probe that runs there, the ways in, and the reading of what it says."""
