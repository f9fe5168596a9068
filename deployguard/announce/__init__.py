"""Who is told of transitions: the log, a command, a webhook; and the announcer that tells them without holding up a rollout."""
