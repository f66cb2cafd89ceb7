"""Predicted SMP: block by block, then through whole networks. Nothing here measures."""
