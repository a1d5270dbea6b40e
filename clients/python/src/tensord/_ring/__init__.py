"""Tensors of single requests, handed round in a region's slots without the server."""
