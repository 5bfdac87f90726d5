"""Operations for roles, beside pyinfra's own: what a machine that converges itself needs.

They run shell programs on the machine that is converged, so that a push over SSH can use them too.
"""
