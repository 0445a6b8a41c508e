"""Behaviour that programs written for Ray rely on, tested on Ray itself and on this project with the same code."""
