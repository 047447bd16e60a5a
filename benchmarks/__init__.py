"""Programs that measure and prove; they are no part of the package, and read by few."""
