//! Nothing but its tests: a short run of every fuzz target.
