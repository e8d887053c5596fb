"""Numbers in memory: device code that reads and writes float32, float16 and bfloat16."""
