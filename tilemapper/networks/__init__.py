"""Generators, discriminators, and the models made of them."""
