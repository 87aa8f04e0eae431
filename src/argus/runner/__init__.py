"""A recipe becomes a run folder: everything checked, then models loaded, trained, attached to, evaluated, and reported."""
