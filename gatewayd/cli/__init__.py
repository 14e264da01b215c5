"""The command line: of the daemon and of the local operator; the publisher and the demo bring their own."""
