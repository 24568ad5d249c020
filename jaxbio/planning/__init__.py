"""Before a run: whether it fits its devices, what its step costs and what the devices tell each other in it."""
