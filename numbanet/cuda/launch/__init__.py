"""What every kernel needs: who a thread is, rows of numbers, packed arguments."""
