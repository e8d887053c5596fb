"""Arrays in device memory, what can become one, and the parameters of a model."""
