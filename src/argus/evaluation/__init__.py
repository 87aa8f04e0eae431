"""Evaluation: a scenario asked through an instruction, answered by an inferencer, scored by metrics.

The four parts are those of ChEF (arXiv 2311.02692); each is a component with a name and options.
"""
