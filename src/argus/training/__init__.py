"""Training: objectives, tuners and stages, on transformers.Trainer and Accelerate."""
