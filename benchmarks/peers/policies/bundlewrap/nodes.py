"""For bw apply: one node with the work, one with nothing to do. Both are this machine, whose user is root
already: its own wrapper would start sudo for each look.
"""

HERE = {"hostname": "localhost", "os": "debian", "os_version": [12], "cmd_wrapper_outer": "sh -c {0}"}

nodes = {"localhost": {**HERE, "bundles": ["w"]}, "empty": {**HERE, "bundles": []}}
