"""Text to model: guard, policy, fleet and scenario files, with every fault named by file, line and field."""
