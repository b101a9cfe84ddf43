"""Training: one run, the queue of runs, the training loop, and the times of its steps."""
