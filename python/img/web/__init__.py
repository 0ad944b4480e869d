"""Connections: what everything that speaks HTTP has in common, whatever it says over them.

`hosts` reads lists of hosts, `sockets` has the clocks, `stretch` the files that are sent, `adapter` the TLS
and the proxies, `blame` the words for what went wrong. Registries, shared caches and what builds fetch are
above it; nothing here retries or follows a redirect.
"""
