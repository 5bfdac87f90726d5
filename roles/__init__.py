"""The roles of the machines, one folder each; and in modules what several roles share."""
