"""What is attached to any model without retraining it, through its anatomy."""
