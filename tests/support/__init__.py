"""Real servers and throw-away identities for the tests of several rooms."""
