"""One script a contender. Each runs as a process of its own, in the virtual environment of its library."""
