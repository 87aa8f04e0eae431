"""What every other package stands on: samples, registry, recipes, runs, errors, progress."""
