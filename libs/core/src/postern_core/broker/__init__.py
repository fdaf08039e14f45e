"""How a nats-server is set up for Postern: its users, what each may do, and its configuration files.

Loads no client of the broker: whoever writes these files does not connect.
"""
