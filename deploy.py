"""Converge a machine: each role that it has, and the gate last.

pyinfra @local deploy.py                        # this machine, by hand
pyinfra inventories/production.py deploy.py     # many machines, over SSH
"""

from pyinfra_solo.deploy import gate, roles

for role in roles():
    role.converge()

gate()
