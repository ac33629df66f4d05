"""What a result is to come to: targets, what is measured of a model, and the way there."""
