"""Steps of the optimizer, queued behind the gradients."""
