"""Keep what was answered, and what turned out to be true, in a database outside of the replica."""
