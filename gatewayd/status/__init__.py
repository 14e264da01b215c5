"""The local window on the daemon: HTTP on loopback or a UNIX socket, metrics, and a page for people."""
