"""What is wrong on this machine: one module for each place to look at, `survey` for all."""
