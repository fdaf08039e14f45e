"""The `postern` command: runs the embedded stack, and asks and changes things over the REST API.

The only part that knows all services, and only their start commands; it trusts nothing but the state directory it made.
"""
