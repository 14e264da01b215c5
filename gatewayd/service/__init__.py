"""What the daemon owes its host: the service manager, the log, the wall clock."""
