"""A Windows host's WinRM service (MS-WSMV) on loopback, with its real authentication and encryption.

What runs behind it is a callable: see command.py. What can go wrong is in ills.py.
"""
