"""Numbers in memory: how device code reads and writes float32, float16 and bfloat16."""
