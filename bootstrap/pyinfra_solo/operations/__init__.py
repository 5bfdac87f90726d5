"""Operations for roles, beside pyinfra's own: packages, accounts, services, releases, validated files.

Each folder has the operation in `__init__.py`, and in `program.py` the program that does the work. The
program needs Python 3.9 and its standard library on the machine, and nothing of this package: a push
over SSH sends its text (`script.Program`). Its check is called in the process on this machine.
"""
