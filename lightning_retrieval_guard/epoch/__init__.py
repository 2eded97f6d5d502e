"""Documents: what a rank knows of an epoch, what all ranks know, which rows count, and the values. No I/O."""
