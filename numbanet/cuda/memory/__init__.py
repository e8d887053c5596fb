"""Arrays in device memory, conversions to them, and the parameters of a model."""
