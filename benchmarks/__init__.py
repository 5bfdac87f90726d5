"""What a boot costs, beside what it would cost without us."""
