"""A whole site on one machine: simulated radios, real everything else. Never imported by the daemon."""
