# Salt takes a file without a state for an error.
nothing:
  test.nop
