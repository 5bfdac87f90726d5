"""What a machine can be: one folder for each role."""
